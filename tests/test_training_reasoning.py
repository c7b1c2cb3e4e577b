"""NLVR2's loss."""

import math

import pytest
import torch
from tasks import TOLERANCE, read_reference, reference_nlvr2, small_nlvr2

from capfilt.config.training import TrainingDevice
from capfilt.training.reasoning import Reasoning
from capfilt.training.recompute import recompute
from capfilt.training.statements import StatementBatch


def test_a_model_that_guesses_has_a_loss_of_log_two_and_every_weight_learns(tmp_path):
    model, tokenizer = small_nlvr2(tmp_path)
    pixels = torch.randint(256, (2, 2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[tokenizer.enc, 6, tokenizer.end], [tokenizer.enc, tokenizer.end, 0]])
    batch = StatementBatch(pixels, ids, ids > 0, torch.tensor([1, 0]))

    Reasoning(model)(batch, 0.0)["nlvr2"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []

    model.head[2].weight.data.zero_()
    assert Reasoning(model)(batch, 0.0)["nlvr2"].item() == pytest.approx(math.log(2))


def test_blocks_that_run_again_give_the_same_gradients_for_less_memory(tmp_path):
    kept = []
    gradients = []
    for blocks in (0, 2):
        model, tokenizer = small_nlvr2(tmp_path)
        recompute(model, TrainingDevice(recompute_text=blocks))
        pixels = torch.full((1, 2, 3, 32, 32), 100, dtype=torch.uint8)
        ids = torch.tensor([[tokenizer.enc, 6, tokenizer.end]])
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            loss = Reasoning(model)(StatementBatch(pixels, ids, ids > 0, torch.tensor([1])), 0.0)["nlvr2"]
        loss.backward()
        kept.append(sum(saved))
        gradients.append(model.text.blocks[0].cross_attn.sides[1].key.weight.grad)
    assert torch.equal(*gradients)
    assert kept[1] < kept[0]


@torch.inference_mode()
def test_the_objective_gives_the_loss_of_the_reference(shared, monkeypatch):
    reference, model = read_reference(shared), reference_nlvr2(shared)
    monkeypatch.setattr("capfilt.training.reasoning.normalise", lambda pixels: pixels)  # the reference's are normalised
    tensors = reference.tensors
    batch = StatementBatch(
        torch.stack([tensors["in.pixel_values"], tensors["in.nlvr.pixel_values_1"]], dim=1),
        reference.text("nlvr.input_ids_raw", reference.tokenizer.enc),
        tensors["in.nlvr.mask"].bool(),
        tensors["in.nlvr.targets"],
    )
    loss = Reasoning(model)(batch, 0.0)["nlvr2"].item()
    assert loss == pytest.approx(reference.meta["numbers"]["nlvr_loss"], abs=TOLERANCE)
