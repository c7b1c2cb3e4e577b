"""Beam search on models small enough to search by hand: the next token's scores stand in a table."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med.attention import KeysValues
from capfilt.med.beam import beam_search

PROMPT, END = [1, 2], 3


def table_model() -> SimpleNamespace:
    """Return a model whose next token depends on the place and the last token, by a table for each image."""

    def decode(ids: Tensor, tables: list[KeysValues], caches: object, start: int, seen: None, groups: None) -> Tensor:
        each = len(ids) // len(tables[0][0])
        place = start + ids.shape[1] - 1
        return torch.stack([tables[0][0][row // each][place][last] for row, last in enumerate(ids[:, -1])])[:, None]

    text = SimpleNamespace(caches=lambda rows, length: [], decode=decode, logits=lambda states: states)
    return SimpleNamespace(text=text)


def random_tables(seed: int, images: int, words: int, eager: float) -> Tensor:
    """Return logits (image, place, last token, next token); eager makes the end token likelier."""
    tables = 2 * torch.randn(images, 10, words, words, generator=torch.Generator().manual_seed(seed))
    tables[..., END] += eager
    return tables


def search(tables: Tensor, **changes: object) -> tuple[list[list[int]], list[float]]:
    """Return what beam_search writes, up to the end token, and its log-probabilities."""
    settings = Sampling(method="beam", **{"repetition_penalty": 1.0, "max_length": 9, "min_length": 3, **changes})
    written = beam_search(table_model(), [(tables, tables)], PROMPT, END, settings)
    rows = [row[: row.index(END) + 1] if END in row else row for row in written.ids.tolist()]
    assert all(not any(row[len(found) :]) for row, found in zip(written.ids.tolist(), rows, strict=True))
    return rows, written.logprobs.tolist()


def following(table: Tensor, ids: list[int], penalty: float = 1.0) -> list[float]:
    """Return the log-probability of each next word; a word that stands there already has its own times the penalty."""
    every = table[len(ids) - 1, ids[-1]].log_softmax(0).tolist()
    return [score * penalty if word in ids else score for word, score in enumerate(every)]


def total(table: Tensor, ids: list[int], penalty: float = 1.0) -> float:
    """Return the log-probability of a caption behind the prompt."""
    return sum(following(table, ids[:at], penalty)[ids[at]] for at in range(len(PROMPT), len(ids)))


def search_alone(table: Tensor, beams: int, least: int, most: int, penalty: float) -> list[int]:
    """Search for one image as the original does, on lists.

    Of the 2K likeliest continuations, those of the first K that end are put away, with their score over their length,
    and the first K others are gone on with. The search is over when K captions are put away and no
    continuation's score over the present length is above the worst of them.
    """
    going, done = [(0.0, PROMPT)], []
    for length in range(len(PROMPT), most):
        every = []
        for score, ids in going:
            scores = following(table, ids, penalty)
            every += [(score + s, [*ids, w]) for w, s in enumerate(scores) if w != END or length >= least]
        every = sorted(every, key=lambda pair: -pair[0])[: 2 * beams]
        done += [(score / length, ids) for score, ids in every[:beams] if ids[-1] == END]
        done = sorted(done, key=lambda pair: -pair[0])[:beams]
        if len(done) == beams and done[-1][0] >= every[0][0] / length:
            return done[0][1]
        going = [(score, ids) for score, ids in every if ids[-1] != END][:beams]
    return max([*done, *((score / most, ids) for score, ids in going)], key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
@pytest.mark.parametrize(("eager", "penalty"), [(-1.0, 1.0), (1.5, 1.0), (1.5, 1.3)])
def test_many_images_at_once_give_what_each_gives_alone(beams, eager, penalty):
    """Some images are done steps before others, and none may be touched by that."""
    tables = random_tables(beams, 300, 6, eager)

    found, logprobs = search(tables, beams=beams, repetition_penalty=penalty)

    assert found == [search_alone(table, beams, 3, 9, penalty) for table in tables]
    assert len({len(row) for row in found}) > 2
    expected = [total(table, row, penalty) for table, row in zip(tables, found, strict=True)]
    assert logprobs == pytest.approx(expected, abs=1e-4)


def test_a_search_as_wide_as_all_captions_finds_the_best_by_its_length_rule():
    """The best by log-probability over length, the prompt counted and the end token not."""
    tables, words, most = random_tables(0, 40, 5, 0.0), range(5), 5
    every = [[*PROMPT, *rest] for n in (1, 2, 3) for rest in itertools.product(words, repeat=n)]
    whole = [ids for ids in every if END not in ids[:-1][2:] and (ids[-1] == END or len(ids) == most)]

    found, _ = search(tables, beams=125, max_length=most, min_length=0)

    for table, row in zip(tables, found, strict=True):
        assert row == max(whole, key=lambda ids: total(table, ids) / (len(ids) - (ids[-1] == END)))
    assert len({len(row) for row in found}) == 3


def test_one_beam_without_an_end_is_greedy():
    tables = random_tables(1, 20, 8, 0.0)
    found, _ = search(tables, beams=1, min_length=9)
    for table, row in zip(tables, found, strict=True):
        for at in range(len(PROMPT), 9):
            scores = table[at - 1, row[at - 1]].clone()
            scores[END] = -torch.inf
            assert row[at] == int(scores.argmax())


def test_on_the_whole_wider_searches_find_better_captions():
    tables = random_tables(2, 200, 12, 0.0)
    means = []
    for beams in (1, 2, 4, 8):
        found, logprobs = search(tables, beams=beams)
        lengths = [len(row) - (row[-1] == END) for row in found]
        means.append(sum(score / length for score, length in zip(logprobs, lengths, strict=True)) / 200)
    assert means == sorted(means)


def test_a_penalty_is_part_of_the_search_and_keeps_words_from_coming_again():
    tables = random_tables(3, 30, 8, -5.0)
    repeats = [
        sum(len(row) - len(set(row)) for row in search(tables, beams=3, repetition_penalty=penalty)[0])
        for penalty in (1.0, 1.5, 20.0)
    ]
    assert repeats[0] > repeats[1] > repeats[2]
