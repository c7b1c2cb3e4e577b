"""The filter as the bootstrap calls it: a score belongs to a pair, whatever else is scored with it."""

from itertools import chain

import pytest
import torch
from capturing import Steps
from fakes import events
from models import lively_checkpoint
from torch import Tensor

from capfilt.config import Device, FilterSettings
from capfilt.errors import ConfigError
from capfilt.filters import Scores
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.graphs import CAPTURES
from capfilt.med.model import MED
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vision import normalise

CPU = Device(kind="cpu", dtype="float32")  # whatever units the machine has
TEXTS = ["a red dog", "two cats on the grass", "b", "the blue dog on the red grass d e f", "zebra"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path_factory.mktemp("med"))


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope="module")
def judge(checkpoint) -> MEDFilter:
    return MEDFilter("hash", checkpoint, FilterSettings(), CPU)


def one(judge: MEDFilter, pixels: Tensor, text: str) -> Scores:
    ((score,),) = judge.score(pixels[None], [[text]])
    return score


def near(found: Scores, expected: Scores) -> bool:
    return abs(found.itm - expected.itm) < 1e-6 and abs(found.itc - expected.itc) < 1e-6


@torch.no_grad()  # in which texts are read with their padding: by the other way through the model
def test_the_scores_are_those_of_the_model_on_the_pair(judge, checkpoint, pixels):
    model, tokenizer = checkpoint
    for i in range(3):
        image = model.encode_image(normalise(pixels[i : i + 1]))
        for text in TEXTS:
            ids, keep = tokenizer.batch([tokenizer.encode(text, tokenizer.enc, 35)])
            itm = model.match(ids, keep, model.project_image(image)).softmax(1)[0, 1].item()
            ids[:, 0] = tokenizer.cls
            itc = (model.image_features(image) @ model.text_features(ids, keep).T).item()
            assert near(one(judge, pixels[i], text), Scores(itm, itc))


@pytest.mark.parametrize(
    "groups",
    [
        [TEXTS, TEXTS[::-1], TEXTS],
        [TEXTS[:1], TEXTS[1:], []],
        [[], [], TEXTS[2:3]],
        [[TEXTS[0]] * 3, ["b"], ["b", "b"]],
    ],
    ids=["full", "ragged", "one text in all", "doubled"],
)
def test_a_score_does_not_depend_on_what_is_scored_with_it(judge, pixels, groups):
    """Neither on the other texts of its image and their order, nor on other images; the order of texts is kept."""
    found = judge.score(pixels, groups)
    assert [len(group) for group in found] == [len(group) for group in groups]
    for i, group in enumerate(groups):
        for score, text in zip(found[i], group, strict=True):
            assert near(score, one(judge, pixels[i], text)), (i, text)


def test_captured_as_on_a_gpu_batches_have_the_scores_of_others(checkpoint, judge, pixels, monkeypatch):
    steps = Steps()
    monkeypatch.setitem(CAPTURES, "cpu", lambda: steps)
    captured = MEDFilter("hash", checkpoint, FilterSettings(), CPU)
    for chosen, groups in (
        (pixels, [TEXTS[:2]] * 3),
        (pixels.flip(0), [TEXTS[2:4]] * 3),
        (pixels, [TEXTS, [], TEXTS[:1]]),
        (pixels[:2], [TEXTS[:1]] * 2),
        (pixels.flip(0), [TEXTS[:2]] * 3),
    ):
        found, expected = captured.score(chosen, groups), judge.score(chosen, groups)
        assert all(map(near, chain(*found), chain(*expected)))
    # One batch is small, and of the others' texts those of the last have the lengths of the first's.
    assert (steps.captured, steps.replayed) == (2 + 1, 2 * 4 + 1)


def test_scores_differ_by_text_and_by_image_so_that_a_mixed_up_order_shows(judge, pixels):
    table = torch.tensor([[list(score) for score in group] for group in judge.score(pixels, [TEXTS] * 3)])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert ((table[i] - table[j]).abs() > 1e-3).all()
        assert ((table[:, i] - table[:, j]).abs() > 1e-3).all()


@pytest.mark.parametrize("groups", [[[], [], []], [[]]])
def test_images_without_texts_have_no_scores(judge, pixels, groups):
    assert judge.score(pixels[: len(groups)], groups) == groups


def test_probabilities_and_cosines_are_in_their_ranges(judge, pixels):
    for group in judge.score(pixels, [TEXTS] * 3):
        for score in group:
            assert 0 < score.itm < 1
            assert -1 <= score.itc <= 1


def test_the_first_token_changes_the_match_and_not_the_cosine(judge, checkpoint, pixels):
    other = MEDFilter("hash", checkpoint, FilterSettings(first_token="[CLS]"), CPU)
    trained, ported = (f.score(pixels, [TEXTS] * 3) for f in (judge, other))
    for a, b in zip(chain(*trained), chain(*ported), strict=True):
        assert abs(a.itm - b.itm) > 1e-4
        assert a.itc == b.itc


def test_without_itc_the_match_is_the_same(judge, checkpoint, pixels):
    alone = MEDFilter("hash", checkpoint, FilterSettings(itc=False), CPU)
    for a, b in zip(chain(*judge.score(pixels, [TEXTS] * 3)), chain(*alone.score(pixels, [TEXTS] * 3)), strict=True):
        assert b == Scores(a.itm, None)


@pytest.mark.parametrize(
    ("raw", "same"),
    [("A Red DOG!", "a red dog"), ("a  red\n dog.", "a red dog"), ("", " "), ("[SEP]", "[ sep ]")],
)
def test_texts_are_scored_in_their_normal_form(judge, pixels, raw, same):
    assert near(one(judge, pixels[0], raw), one(judge, pixels[0], same))


def test_a_long_text_counts_to_its_limits(checkpoint, pixels):
    words = ["red", "blue", "dog", "cat", "two", "grass", "the"]
    for limit, kept in ((FilterSettings(max_words=3), 3), (FilterSettings(max_tokens=6), 4)):
        judge = MEDFilter("hash", checkpoint, limit, CPU)
        assert near(one(judge, pixels[0], " ".join(words)), one(judge, pixels[0], " ".join(words[:kept])))
        assert not near(one(judge, pixels[0], " ".join(words)), one(judge, pixels[0], " ".join(words[: kept - 1])))


def test_a_hostile_text_of_any_length_is_scored(judge, pixels):
    for text in ("x" * 100_000, "[ENC] [SEP] [PAD]", "\x00\u202e", "日本語 " * 1000, "##" * 500):
        assert 0 < one(judge, pixels[0], text).itm < 1


def test_a_limit_over_the_models_positions_is_refused_at_the_start(checkpoint):
    with pytest.raises(ConfigError, match=r"scoring\.max_tokens: 41, the model takes 40; lower it"):
        MEDFilter("hash", checkpoint, FilterSettings(max_tokens=41), CPU)


def test_another_batch_has_the_model_while_the_texts_of_one_are_read(judge, pixels, monkeypatch):
    happened = events(monkeypatch, (Tokenizer, "encode_all"), (MED, "encode_image"))

    judge.score(pixels, [TEXTS] * 3, happened.turn())

    assert happened == ["encode_all", "turn", "encode_image", "turn over"]
