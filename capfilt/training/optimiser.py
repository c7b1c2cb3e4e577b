"""AdamW on an objective, and one update of its weights."""

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from capfilt.config.training import Schedule

FUSED = ("cpu", "cuda")  # devices on which one kernel updates all parameters


def adamw(objective: nn.Module, schedule: Schedule, device: torch.device) -> AdamW:
    """Return AdamW over the parameters that are trained, without momentum copies."""
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    spared = [] if schedule.decay_vectors else [p for p in parameters if p.ndim < 2]
    kept = parameters if schedule.decay_vectors else [p for p in parameters if p.ndim >= 2]
    groups = [{"params": kept, "weight_decay": schedule.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    fused = device.type in FUSED
    return AdamW(
        [group for group in groups if group["params"]],
        lr=schedule.learning_rate,
        betas=(0.9, schedule.beta2),
        fused=fused,
        foreach=not fused,
    )


def update(optimiser: Optimizer, rate: float, max_norm: float | None) -> Tensor:
    """Take one step along the gradients, clear them, and return their length, a scalar."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, float("inf") if max_norm is None else max_norm)
    optimiser.step()
    optimiser.zero_grad()
    return norm
