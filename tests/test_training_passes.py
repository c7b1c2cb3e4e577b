"""The order of entries is arithmetic: every entry once a pass, the same however batches are shared out."""

from collections import Counter
from itertools import chain
from typing import NamedTuple

import pytest
import torch
from tasks import small_vqa, write_json
from torch import Tensor

from capfilt.config.tasks import QuestionData, QuestionFile
from capfilt.config.training import Schedule
from capfilt.errors import AnnotationError, ConfigError, RunError
from capfilt.training.passes import Draw, Passes, in_order
from capfilt.training.questions import Questions


class Numbers(NamedTuple):
    entries: Tensor
    chances: Tensor


class Counting:
    """Entries that tell which they are, and a random number of their draw."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, draw: Draw) -> tuple[int, float]:
        return draw.sample, draw.generator().random()

    def content(self) -> list[tuple[int]]:
        return [(number,) for number in range(self.size)]

    def collate(self, items: list[tuple[int, float]]) -> Numbers:
        return Numbers(*(torch.tensor(column) for column in zip(*items, strict=True)))


def taken(steps: range, share: int = 0, shares: int = 1, **changes: int) -> list[list[int]]:
    settings = {"entries": 10, "batch": 4, "seed": 7, "workers": 0, **changes}
    schedule = Schedule(steps=1, batch_size=settings["batch"])
    passes = Passes(Counting(settings["entries"]), schedule, settings["seed"], settings["workers"])
    return [batch.entries.tolist() for batch in passes.batches(steps, share, shares)]


def test_every_entry_comes_once_a_pass_across_the_seams_of_batches():
    row = list(chain(*taken(range(10))))
    for start in range(0, 40, 10):
        assert sorted(row[start : start + 10]) == list(range(10))
    assert row[:10] != row[10:20]


def test_a_run_may_start_anywhere():
    assert taken(range(3, 9)) == taken(range(9))[3:]


def test_a_run_does_not_go_on_with_more_or_fewer_entries_which_would_come_in_another_order():
    before, after = (Passes(Counting(size), Schedule(steps=1, batch_size=4), 7, 0) for size in (10, 11))
    before.load_state_dict(before.state_dict())
    before.load_state_dict({})  # of a state that tells no number
    with pytest.raises(RunError, match=r"hold 11 entries, 10 when the run started, .*; put the files back"):
        after.load_state_dict(before.state_dict())


def test_a_run_does_not_go_on_with_as_many_entries_that_say_other_things(tmp_path):
    checkpoint = small_vqa(tmp_path)
    schedule = Schedule(steps=1, batch_size=1)

    def passes(answer: str) -> Passes:
        entry = {"image": "0.png", "question": "What?", "answer": answer}
        files = [QuestionFile(questions=write_json(tmp_path / "q.json", [entry]), images="{image}")]
        return Passes(Questions(QuestionData(files=files), checkpoint.tokenizer, 32), schedule, 7, 0)

    state = passes("a dog").state_dict()
    passes("a dog").load_state_dict(state)
    with pytest.raises(RunError, match="as many entries as when the run started, but with other content; put the"):
        passes("a cat").load_state_dict(state)


@pytest.mark.parametrize("shares", [2, 4])
def test_shares_make_up_the_whole_batch(shares):
    whole = taken(range(6))
    parts = [taken(range(6), share, shares) for share in range(shares)]
    assert [list(chain(*each)) for each in zip(*parts, strict=True)] == whole


def test_loader_processes_change_nothing():
    assert taken(range(6), workers=2) == taken(range(6))


def test_another_seed_gives_another_order():
    assert taken(range(3), seed=8) != taken(range(3))


def test_no_two_draws_share_their_chance():
    passes = Passes(Counting(10), Schedule(steps=1, batch_size=4), 7, 0)
    chances = torch.cat([batch.chances for batch in passes.batches(range(10))])
    assert len(set(chances.tolist())) == 40


def test_a_batch_that_is_larger_than_a_pass_is_refused():
    with pytest.raises(ConfigError, match=r"schedule\.batch_size: 11, but there are 10 entries; lower it"):
        Passes(Counting(10), Schedule(steps=1, batch_size=11), 0, 0)
    assert Passes(Counting(10), Schedule(steps=1, batch_size=4), 0, 0).epoch_steps == 2


def test_an_evaluation_takes_all_in_their_order():
    batches = list(in_order(Counting(5), size=2, seed=0, workers=0))
    assert [batch.entries.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert Counter(len(batch.chances) for batch in batches) == {2: 2, 1: 1}


class Broken(Counting):
    """Entries of which one cannot be read."""

    def __getitem__(self, draw: Draw) -> tuple[int, float]:
        if draw.sample == 5:
            raise AnnotationError("5.jpg: is broken")
        return super().__getitem__(draw)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_entry_that_cannot_be_read_is_told_without_a_traceback(workers):
    batches = in_order(Broken(10), size=4, seed=0, workers=workers)
    assert next(batches).entries.tolist() == [0, 1, 2, 3]
    with pytest.raises(AnnotationError, match=r"^5\.jpg: is broken$"):
        next(batches)
