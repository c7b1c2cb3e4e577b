"""The captioner as the bootstrap calls it."""

import math
from itertools import chain

import pytest
import torch
from capturing import Steps
from fakes import events
from models import lively_checkpoint
from torch import Tensor

from capfilt.captioners.med import MEDCaptioner
from capfilt.config import Device, Sampling
from capfilt.errors import ConfigError
from capfilt.med.beam import beam_search
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.graphs import CAPTURES
from capfilt.med.model import MED
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vision import normalise

CPU = Device(kind="cpu", dtype="float32")  # whatever units the machine has
SEEDS = [11, 12, 13, 2**63 - 1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    torch.set_num_threads(1)
    # This seed gives captions of which some end early and some repeat a word, which tests below look at.
    return lively_checkpoint(tmp_path_factory.mktemp("med"), seed=5)


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def captioner(checkpoint):
    return lambda **changes: MEDCaptioner("hash", checkpoint, Sampling(**changes), CPU)


def test_every_image_gets_its_captions(captioner, pixels):
    found = captioner(captions=3).caption(pixels, SEEDS)
    assert [len(group) for group in found] == [3, 3, 3, 3]
    assert len({caption.text for group in found for caption in group}) == 12


def test_the_same_seeds_give_the_same_captions_and_others_others(captioner, pixels):
    first, again = (captioner(captions=2).caption(pixels, SEEDS) for _ in range(2))
    other = captioner(captions=2).caption(pixels, [seed - 1 for seed in SEEDS])
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_another_batch_has_the_model_while_the_texts_of_one_are_made(captioner, pixels, monkeypatch):
    happened = events(monkeypatch, (MED, "encode_image"), (Tokenizer, "decode_all"))

    captioner().caption(pixels, SEEDS, happened.turn())

    assert happened == ["turn", "encode_image", "turn over", "decode_all"]


@pytest.mark.parametrize("method", ["nucleus", "greedy", "beam"])
def test_an_image_is_captioned_alike_in_any_batch(captioner, pixels, method):
    whole = captioner(method=method).caption(pixels, SEEDS)
    for i in range(4):
        ((alone,),) = captioner(method=method).caption(pixels[i : i + 1], SEEDS[i : i + 1])
        assert (alone.text, alone.tokens) == (whole[i][0].text, whole[i][0].tokens)
        assert alone.logprob == pytest.approx(whole[i][0].logprob, abs=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"captions": 2, "min_length": 0},
        {"method": "greedy"},
        {"prompt": "", "min_length": 0},
        {"max_length": 5, "min_length": 0},
    ],
    ids=["nucleus", "greedy", "no prompt", "one token"],
)
def test_captured_as_on_a_gpu_batches_have_the_captions_of_others(captioner, pixels, settings, monkeypatch):
    steps, plain = Steps(), captioner(**settings)
    monkeypatch.setitem(CAPTURES, "cpu", lambda: steps)
    captured = captioner(**settings)
    for chosen, seeds in ((pixels, SEEDS), (pixels.flip(0), SEEDS), (pixels[:2], SEEDS[:2]), (pixels, SEEDS[::-1])):
        found, expected = captured.caption(chosen, seeds), plain.caption(chosen, seeds)
        for mine, its in zip(chain(*found), chain(*expected), strict=True):
            assert (mine.text, mine.tokens) == (its.text, its.tokens)
            assert mine.logprob == pytest.approx(its.logprob, abs=1e-4)
    assert steps.replayed >= 3


def test_fewer_captions_are_the_first_of_more(captioner, pixels):
    few, many = (captioner(captions=n).caption(pixels, SEEDS) for n in (2, 5))
    assert [[c.text for c in group] for group in few] == [[c.text for c in group[:2]] for group in many]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_without_chance_the_seeds_do_not_matter(captioner, pixels, method):
    assert captioner(method=method).caption(pixels, SEEDS) == captioner(method=method).caption(pixels, [0] * 4)


def test_tokens_count_the_end_and_not_the_prompt(captioner, pixels):
    """A caption without an end token was stopped by max_length, 10 with the 4 of the prompt."""
    found = [c for group in captioner(captions=8, max_length=10).caption(pixels, SEEDS) for c in group]
    assert {caption.tokens for caption in found} <= set(range(2, 7))  # min_length 5 asks for one word
    assert 6 in {caption.tokens for caption in found}
    assert min(caption.tokens for caption in found) < 6


def test_the_prompt_is_read_and_not_part_of_the_text(captioner, checkpoint, pixels):
    found = captioner(method="greedy")
    assert found.prompt == [checkpoint.tokenizer.dec, *checkpoint.tokenizer.pieces("a picture of")]
    texts = [group[0].text for group in found.caption(pixels, SEEDS)]
    others = [group[0].text for group in captioner(method="greedy", prompt="two").caption(pixels, SEEDS)]
    assert texts != others
    assert not any(text.startswith("a picture of") for text in texts)


@torch.inference_mode()
def test_the_logprob_of_a_beam_is_the_models_own_without_the_penalty(checkpoint, captioner, pixels):
    """So that captions of any two settings can be compared in the ledger."""
    beam = captioner(method="beam", repetition_penalty=1.8)
    model, end = checkpoint.model, checkpoint.tokenizer.end
    image = model.project_image(model.encode_image(normalise(pixels)))
    searched = beam_search(model, image, beam.prompt, end, beam.settings)
    logits = model.decode(searched.ids[:, :-1], image).log_softmax(2)

    for i, (caption,) in enumerate(beam.caption(pixels, SEEDS)):
        places = range(len(beam.prompt), len(beam.prompt) + caption.tokens)
        expected = sum(float(logits[i, at - 1, searched.ids[i, at]]) for at in places)
        assert caption.logprob == pytest.approx(expected, abs=1e-3)
        assert caption.logprob > searched.logprobs[i].item() + 0.1  # which the penalty lowered


@pytest.mark.parametrize("length", [4, 41])
def test_a_length_that_prompt_or_model_do_not_allow_is_refused_at_the_start(captioner, length):
    message = f"sampling.max_length: {length} tokens; it must be over 4, which the prompt takes, and at most 40"
    with pytest.raises(ConfigError, match=message):
        captioner(max_length=length, min_length=0)


def test_bfloat16_writes_captions_too(tmp_path, pixels):
    device = Device(kind="cpu", dtype="bfloat16")
    captioner = MEDCaptioner("hash", lively_checkpoint(tmp_path), Sampling(captions=2), device)
    found = captioner.caption(pixels, SEEDS)
    assert [len(group) for group in found] == [2] * 4
    assert all(caption.logprob < 0 for group in found for caption in group)


@pytest.mark.parametrize("method", ["nucleus", "greedy", "beam"])
def test_weights_that_are_no_numbers_show_in_the_log_probability(tmp_path, pixels, method):
    broken = lively_checkpoint(tmp_path)
    broken.model.text.head.bias.data.fill_(math.nan)
    found = MEDCaptioner("hash", broken, Sampling(method=method), CPU).caption(pixels, SEEDS)
    assert all(math.isnan(caption.logprob) for group in found for caption in group)
