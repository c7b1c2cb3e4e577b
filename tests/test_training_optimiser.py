"""AdamW: what is decayed, what is trained, and that the fast form is the plain one."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from capfilt.config.training import Schedule
from capfilt.training.optimiser import adamw, update


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))


def step(model: nn.Module, optimiser: AdamW, max_norm: float | None = None, scale: float = 1.0) -> torch.Tensor:
    (scale * model(torch.ones(3, 8)).square().sum()).backward()
    return update(optimiser, 1e-2, max_norm)


def test_the_fused_form_gives_what_plain_adamw_gives():
    fast, plain = network(), network()
    ours = adamw(fast, Schedule(steps=1, beta2=0.98), torch.device("cpu"))
    theirs = AdamW(plain.parameters(), 1e-2, (0.9, 0.98), weight_decay=0.05, foreach=False, fused=False)
    for _ in range(5):
        step(fast, ours)
        plain(torch.ones(3, 8)).square().sum().backward()
        theirs.step()
        theirs.zero_grad()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("vectors", "shrunk"), [(True, {1, 2}), (False, {2})])
def test_vectors_are_decayed_or_spared(vectors, shrunk):
    """Without a gradient AdamW only decays."""
    model = network()
    optimiser = adamw(model, Schedule(steps=1, weight_decay=0.5, decay_vectors=vectors), torch.device("cpu"))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update(optimiser, 1e-1, None)
    moved = {p.ndim for p, old in zip(model.parameters(), before, strict=True) if not torch.equal(p, old)}
    assert moved == shrunk


def test_what_needs_no_gradient_is_not_trained():
    model = network()
    model[0].requires_grad_(False)
    trained = [
        p for group in adamw(model, Schedule(steps=1), torch.device("cpu")).param_groups for p in group["params"]
    ]
    assert len(trained) == 4


def test_a_long_gradient_is_scaled_down_and_its_own_length_told():
    model = nn.Linear(1, 1, bias=False)
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    weight = model.weight.item()
    (1e6 * model(torch.ones(1, 1))).sum().backward()
    assert update(optimiser, 0.5, 1.0).item() == pytest.approx(1e6)
    assert model.weight.item() == pytest.approx(weight - 0.5)


def test_no_limit_leaves_the_gradient_alone():
    model = nn.Linear(1, 1, bias=False)
    optimiser = torch.optim.SGD(model.parameters(), 1.0)
    weight = model.weight.item()
    (1e3 * model(torch.ones(1, 1))).sum().backward()
    update(optimiser, 1.0, None)
    assert model.weight.item() == pytest.approx(weight - 1e3)
    assert model.weight.grad is None
