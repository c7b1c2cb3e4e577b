from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import SHARD, commit, complete, new_run, record, web

from capfilt import storage
from capfilt.ledger import is_complete
from capfilt.ledger.broken import broken_shards, forget_broken
from capfilt.ledger.remaining import Remaining
from capfilt.runs import Run

SHARDS = [replace(SHARD, id=f"{n:05d}", url=f"in/{n:05d}.tar") for n in range(4)]


@pytest.fixture
def run(tmp_path) -> Run:
    """A run of which the first three shards are complete."""
    run = new_run(tmp_path, SHARDS)
    for shard in SHARDS[:3]:
        complete(run, shard, [record(n) for n in range(4)], [web(n) for n in range(4)])
    return run


def broken(run: Run) -> dict[str, str]:
    return broken_shards(run, [shard.id for shard in SHARDS[:3]], storage.list_files(run.ledger))


def test_a_missing_table_is_seen(run):
    assert broken(run) == {}
    missing = Path(run.ledger, "00000.candidates.parquet")
    missing.unlink()
    assert broken(run) == {"00000": f"{missing}: is missing"}


def test_a_table_that_is_listed_is_not_asked_for_again(run, monkeypatch):
    """Of a hundred thousand shards that would be so many questions to a store."""
    files = storage.list_files(run.ledger)
    monkeypatch.setattr(storage, "exists", pytest.fail)
    assert broken_shards(run, [shard.id for shard in SHARDS[:3]], files) == {}


def test_a_table_that_came_behind_the_listing_is_not_missing(run):
    assert broken_shards(run, ["00000"], ["00000.json"]) == {}


@pytest.mark.parametrize("parts", [False, True])
def test_a_broken_shard_is_left_as_if_nothing_were_there_and_is_forgotten(run, parts, caplog):
    if parts:  # of a fold that was cut short
        Path(run.parts(SHARDS[0])).mkdir()
        Path(run.parts(SHARDS[0]), "00000000-00000004.json").write_text("{}")
    Path(run.ledger, "00000.samples.parquet").unlink()

    config = run.config().model_copy(update={"batch_size": 4})

    left = Remaining(run, config, SHARDS)

    assert left.broken.keys() == {"00000"}
    assert (left.done, left.ready, [unit.shard for unit in left]) == (8, [], [SHARDS[0], SHARDS[3]])
    forget_broken(run, left.broken)
    assert "00000.samples.parquet: is missing; the shard is done anew" in caplog.text
    assert not is_complete(run, SHARDS[0])
    assert [unit.shard for unit in Remaining(run, config, SHARDS)] == [SHARDS[0], SHARDS[3]]
    commit(run, SHARDS[0], [0, 4], [record(n) for n in range(4)], [])
    assert storage.list_files(run.parts(SHARDS[0]))
