"""Gradient checkpointing: less is kept in memory, and the gradients are the same."""

from collections.abc import Callable

import pytest
import torch
from lessons import Colours, Lesson, checkpoint
from torch import Tensor, nn

from capfilt.config.momentum import MomentumSettings
from capfilt.config.training import TrainingDevice
from capfilt.training.objectives import Objective, Pretraining
from capfilt.training.recompute import recompute


@pytest.fixture
def make(tmp_path) -> Callable[[], Objective]:
    lesson = Lesson(output=str(tmp_path / "run"), objective="pretraining", dropout=0.2)
    return lambda: Pretraining(*checkpoint(lesson), 0.0, MomentumSettings(queue=16), 0).train()


def gradients(objective: Objective) -> dict[str, Tensor]:
    torch.manual_seed(0)
    sum(objective(Colours(4).whole(0), 0.5).values()).backward()
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def kept(objective: Objective) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    sizes = []

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            sizes.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        objective(Colours(4).whole(0), 0.5)
    return sum(sizes)


@pytest.mark.parametrize(("vision", "text"), [(1, 0), (0, 1), (2, 2), (99, 99)])
def test_the_gradients_are_equal_dropout_included(make, vision, text):
    plain, saving = make(), make()
    recompute(saving.model, TrainingDevice(recompute_vision=vision, recompute_text=text))
    expected, found = gradients(plain), gradients(saving)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_each_block_that_is_computed_again_keeps_less(make):
    sizes = []
    for blocks in (0, 1, 2):
        objective = make()
        recompute(objective.model, TrainingDevice(recompute_vision=blocks, recompute_text=blocks))
        sizes.append(kept(objective))
    assert sizes[0] > 1.2 * sizes[1] > 1.2 * 1.2 * sizes[2]


def test_only_the_last_blocks_are_changed_and_no_parameter_is_renamed(make):
    objective = make()
    names = list(objective.state_dict())
    recompute(objective.model, TrainingDevice(recompute_vision=1, recompute_text=1))
    assert list(objective.state_dict()) == names
    assert ["forward" in vars(block) for block in objective.model.vision.vit.blocks] == [False, True]
    assert ["encode" in vars(block) for block in objective.model.text.blocks] == [False, True]
    assert not any("encode" in vars(block) for block in objective.momentum.copy.text.blocks)
