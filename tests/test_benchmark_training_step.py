"""The plain training step that ours is measured against: it computes the same, and so does each lever alone."""

import argparse
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from plain_step import LEVERS, PlainStep
from step_inputs import build, likeliest, made_up_tokenizer, momentum, random_batch, random_queues
from training_step import OurStep

OPTIONS = argparse.Namespace(
    device="cpu", width=64, depth=2, image=32, batch=3, tokens=10, queue=12, vocabulary=60, dtypes=["float32"]
)
EXACT = [lever for lever in LEVERS if lever != "bfloat16"]


def plain(levers: frozenset[str] = frozenset()) -> PlainStep:
    torch.set_num_threads(1)
    model, tokens = build(OPTIONS, dropout=0.0), made_up_tokenizer(OPTIONS.vocabulary)
    return PlainStep(model, tokens, momentum(OPTIONS), random_queues(OPTIONS), levers, likeliest)


def check(step: PlainStep | OurStep, reference: PlainStep) -> None:
    """Take three steps with both: what the first leaves in weights, copies and queues shows in the others."""
    batch = random_batch(OPTIONS)
    for done in (0.01, 0.02, 0.03):
        assert step.take(batch, done) == pytest.approx(reference.take(batch, done), rel=2e-5)


@pytest.mark.parametrize("lever", EXACT)
def test_each_lever_alone_changes_rounding_and_no_more(lever):
    check(plain(frozenset([lever])), plain())


def test_all_levers_together_do_not_either():
    check(plain(frozenset(EXACT)), plain())


@pytest.mark.parametrize("recomputed", [0, 2])
def test_our_step_is_the_plain_one(recomputed):
    reference = plain()
    ours = OurStep(deepcopy(reference.model), reference, torch.float32, recomputed, likeliest)
    check(ours, reference)
    for name in ("image", "text"):
        queue = getattr(ours.objective.momentum, f"{name}_queue")
        torch.testing.assert_close(queue, getattr(reference.queues, name), rtol=0, atol=1e-6)


def test_the_plain_step_draws_negatives_pads_and_projects_as_its_name_says():
    """What the levers are measured against must really be plain: it asks for one negative at a time."""
    asked: list[int] = []

    def choose(weights: torch.Tensor, count: int) -> torch.Tensor:
        asked.append(len(weights))
        return likeliest(weights, count)

    step = plain()
    step.choose = choose
    step.take(random_batch(OPTIONS), 0.1)
    assert asked == [1] * (2 * OPTIONS.batch)
    assert not any(block.attn.fused_attn for block in step.model.vision.vit.blocks)
