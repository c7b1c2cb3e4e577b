from dataclasses import replace
from operator import length_hint

import pytest
from ledgers import SHARD, commit, new_run, record, web

from capfilt import storage
from capfilt.config import BootstrapConfig
from capfilt.ledger import fold, remaining
from capfilt.ledger.remaining import Remaining
from capfilt.records import Shard
from capfilt.runs import Run

SHARDS = [replace(SHARD, id=f"{n:05d}", url=f"in/{n:05d}.tar") for n in range(4)]


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of four shards of four samples: complete, half done, all units done, untouched."""
    run = new_run(tmp_path, SHARDS)
    records, candidates = [record(n) for n in range(4)], [web(n) for n in range(4)]
    fold(run, SHARDS[0], commit(run, SHARDS[0], [0, 2, 4], records, candidates))
    commit(run, SHARDS[1], [0, 2], records, candidates)
    commit(run, SHARDS[2], [0, 2, 4], records, candidates)
    return run


@pytest.fixture
def config(run) -> BootstrapConfig:
    return run.config().model_copy(update={"unit_size": 2, "batch_size": 2})


def names(left: Remaining) -> list[tuple[str, str]]:
    return [(unit.shard.id, unit.name) for unit in left]


def test_what_is_committed_is_not_left(run, config):
    left = Remaining(run, config, SHARDS)

    assert (left.total, left.done) == (16, 10)
    assert left.ready == [SHARDS[2]]
    assert [left.uncommitted(shard) for shard in SHARDS] == [0, 2, 0, 4]
    assert left.uncommitted(replace(SHARD, id="another")) == 0
    assert names(left) == [
        ("00001", "00000002-00000004"),
        ("00003", "00000000-00000002"),
        ("00003", "00000002-00000004"),
    ]


def test_the_parts_that_a_fold_left_beside_a_complete_shard_are_to_be_removed(run, config):
    storage.publish(storage.join(run.parts(SHARDS[0]), "00000000-00000002.json"), b"{}")

    left = Remaining(run, config, SHARDS[:1])

    assert (left.ready, left.done, names(left)) == ([SHARDS[0]], 4, [])


def test_the_last_unit_of_a_shard_is_told_however_it_was_cut(run, config):
    left = Remaining(run, config, SHARDS)
    first, *others = left

    assert left.count(first)
    assert [left.count(replace(others[0], hi=1)), left.count(replace(others[0], lo=1))] == [False, False]
    assert left.unfinished
    assert left.count(others[1])
    assert not left.unfinished


def test_units_are_counted_before_they_are_cut(run, config):
    left = Remaining(run, config, [*SHARDS, replace(SHARD, id="empty", samples=0)])
    assert length_hint(left) == len(list(left)) == 4


def test_units_are_cut_when_they_are_asked_for(run, config, monkeypatch):
    cut: list[str] = []

    def cutting(shard: Shard, *rest: object) -> list[object]:
        cut.append(shard.id)
        return real(shard, *rest)  # type: ignore[arg-type]

    real = remaining.cut_units
    left = Remaining(run, config, [SHARDS[3], replace(SHARDS[3], id="00004")])
    monkeypatch.setattr(remaining, "cut_units", cutting)
    units = iter(left)

    assert cut == []
    next(units)
    assert cut == ["00003"]


def test_a_ledger_is_listed_once_however_many_shards_it_holds(run, config, monkeypatch):
    asked: list[str] = []
    real = remaining.storage.list_entries
    monkeypatch.setattr(remaining.storage, "list_entries", lambda folder: asked.append(folder) or real(folder))

    Remaining(run, config, SHARDS)

    assert sorted(asked) == sorted([run.ledger, run.quarantine, run.parts(SHARDS[1]), run.parts(SHARDS[2])])
