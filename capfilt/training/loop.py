"""The training loop: AdamW on an objective, resumed from its last state, with the numbers written down.

The folder of a training run:

    config.yaml       settings, written first; other settings are refused
    state.pt          model, optimiser and step to resume from; replaced whole
    data.json         how many samples are trained on, and how many were left out and why
    metrics.jsonl     one line every few steps
    checkpoint/       the trained model, written last: its presence means done
"""

import json
import logging
import math
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from capfilt.config import Config, dump
from capfilt.config.data import DataSettings
from capfilt.config.training import Schedule, TrainingDevice
from capfilt.errors import ConfigError, RunError
from capfilt.med.checkpoints import CONFIG, DAMAGE, Checkpoint, save
from capfilt.progress import Progress
from capfilt.storage import publish, staged
from capfilt.training.data import Batch, Pairs, batches
from capfilt.training.devices import precision
from capfilt.training.objectives import Objective

METRICS_EVERY = 10
logger = logging.getLogger(__name__)
TEMPERATURES = (0.001, 0.5)  # the original keeps the learned temperature in this range


class TrainingRun:
    """A folder that training can stop and go on in."""

    def __init__(self, folder: Path, config: Config) -> None:
        """Make the folder, or take one of the same settings up.

        Raises:
            RunError: the folder was made with other settings.
        """
        self.folder, self.checkpoint = folder, folder / "checkpoint"
        settings, given = folder / "config.yaml", dump(config)
        if not settings.exists():
            publish(str(settings), given.encode())
        stored = settings.read_text(encoding="utf-8")
        for before, after in zip_longest(stored.splitlines(), given.splitlines(), fillvalue="nothing"):
            if before != after:
                raise RunError(
                    f"{settings}: holds {before.strip()!r} where {after.strip()!r} was given; "
                    "put the settings back, or choose another output folder"
                )

    @property
    def finished(self) -> bool:
        """Whether the checkpoint is whole."""
        return (self.checkpoint / CONFIG).exists()

    def save(self, step: int, objective: torch.nn.Module, optimiser: Optimizer) -> None:
        """Replace the state to resume from."""
        with staged(str(self.folder / "state.pt")) as partial:
            torch.save(
                {"step": step, "objective": objective.state_dict(), "optimiser": optimiser.state_dict()}, partial
            )

    def restore(self, objective: torch.nn.Module, optimiser: Optimizer) -> int:
        """Load the last state, if there is one, and return the step to go on from."""
        file = self.folder / "state.pt"
        if not file.exists():
            self._forget(0)
            return 0
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            raise RunError(f"{file}: is damaged ({type(error).__name__}); remove it to train from the start") from error
        objective.load_state_dict(state["objective"])
        optimiser.load_state_dict(state["optimiser"])
        self._forget(state["step"])
        return int(state["step"])

    def finish(self, checkpoint: Checkpoint) -> None:
        """Write the checkpoint and drop the state."""
        save(checkpoint, self.checkpoint)
        (self.folder / "state.pt").unlink(missing_ok=True)

    def note_data(self, samples: int, left_out: Mapping[str, int]) -> None:
        """Write down how many samples are trained on and which were left out, and tell the latter."""
        if left_out:
            reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
            logger.warning("%s: %d samples are trained on, left out: %s", self.folder, samples, reasons)
        publish(str(self.folder / "data.json"), json.dumps({"samples": samples, "left_out": dict(left_out)}).encode())

    def _forget(self, step: int) -> None:
        """Drop the metrics of the steps that are taken again, and a line that was cut short."""
        file = self.folder / "metrics.jsonl"
        if file.exists():
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] < step]
            publish(str(file), "".join(kept).encode())

    def log(self, values: dict[str, float]) -> None:
        """Append a line to the metrics."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def train(
    run: TrainingRun,
    checkpoint: Checkpoint,
    objective: Objective[Batch],
    data: DataSettings,
    schedule: Schedule,
    device: TrainingDevice,
    seed: int,
) -> None:
    """Train the objective, which holds the checkpoint's model, in place and write the model to the run's folder.

    All chance in a step follows from seed and step, so a resumed run goes on as if it had never stopped.
    """
    where = precision(device)
    model = checkpoint.model
    objective.to(where.device).train()
    optimiser = AdamW(
        model.parameters(), schedule.learning_rate, (0.9, schedule.beta2), weight_decay=schedule.weight_decay
    )
    start = run.restore(objective, optimiser)
    size, positions = model.config.vision.image_size, model.config.text.positions
    if data.max_tokens > positions:
        raise ConfigError(f"data.max_tokens: {data.max_tokens}, the model takes {positions}; lower it")
    pairs = Pairs(data, checkpoint.tokens, size, schedule.texts_per_image)
    run.note_data(len(pairs), pairs.left_out)
    total = schedule.steps * schedule.batch_size
    with Progress(total, start * schedule.batch_size) as progress:
        for step, batch in enumerate(batches(pairs, schedule, seed, start, data.workers), start):
            torch.manual_seed((seed * 1_000_003 + step) % 2**63)
            batch = Batch(*(tensor.to(where.device, non_blocking=True) for tensor in batch))
            with where.autocast():
                losses = objective(batch, step / schedule.steps)
            rate = learning_rate(step, schedule)
            norm = _update(model, optimiser, sum(losses.values(), torch.zeros(())), rate, schedule)
            if step % METRICS_EVERY == 0 or step + 1 == schedule.steps:
                values = {name: round(loss.item(), 5) for name, loss in losses.items()}
                run.log({"step": step, **values, "learning_rate": rate, "gradient_norm": round(float(norm), 4)})
            progress.add(schedule.batch_size, ", ".join(f"{name} {loss.item():.3f}" for name, loss in losses.items()))
            if (step + 1) % schedule.checkpoint_steps == 0:
                run.save(step + 1, objective, optimiser)
    run.finish(Checkpoint(model.cpu().eval(), checkpoint.tokens))


def learning_rate(step: int, schedule: Schedule) -> float:
    """Return the rate of a step: a straight line up to the peak, then a cosine down to 0 at the end."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    return schedule.learning_rate * (1 + math.cos(math.pi * done)) / 2


def _update(model: torch.nn.Module, optimiser: Optimizer, loss: Tensor, rate: float, schedule: Schedule) -> Tensor:
    """Take one optimiser step and return the length of the gradient."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.max_gradient_norm)
    optimiser.step()
    if isinstance(temperature := getattr(model, "temperature", None), torch.nn.Parameter):
        temperature.data.clamp_(*TEMPERATURES)
    return norm
