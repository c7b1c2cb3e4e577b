import shutil
from pathlib import Path

import pytest
from ledgers import SHARD, commit, new_run, record, web

from capfilt.errors import RunError, ShardError
from capfilt.ledger import completion, fold, is_complete, tables
from capfilt.ledger.completion import complete_if_covered, complete_shard
from capfilt.records import Unit
from capfilt.runs import Run


@pytest.fixture
def run(tmp_path) -> Run:
    return new_run(tmp_path)


def commit_all(run: Run, cuts: list[int], status: str = "ok") -> list[Unit]:
    broken = {"status": status, "error": f"is {status}"}
    records = [record(n, **(broken if n else {})) for n in range(4)]
    return commit(run, SHARD, cuts, records, [web(n) for n in range(4) if records[n].status == "ok"])


def test_a_shard_is_completed_with_its_last_unit_and_not_before(run):
    commit_all(run, [0, 2])
    assert not complete_if_covered(run, SHARD, run.config())
    assert not is_complete(run, SHARD)

    commit_all(run, [2, 4])
    assert complete_if_covered(run, SHARD, run.config())
    assert is_complete(run, SHARD)
    assert not Path(run.parts(SHARD)).exists()
    assert complete_if_covered(run, SHARD, run.config())


def test_units_that_overlap_are_taken_once(run):
    commit_all(run, [0, 1, 4])
    commit_all(run, [0, 4])

    assert complete_if_covered(run, SHARD, run.config())


def test_a_shard_over_its_share_of_failures_is_left_to_the_driver_which_says_so(run):
    commit_all(run, [0, 2, 4], status="undecodable")

    assert not complete_if_covered(run, SHARD, run.config())
    with pytest.raises(ShardError, match=r"3 of 4 samples failed \(3 undecodable\)") as error:
        complete_shard(run, SHARD, run.config())
    assert "; key1: is undecodable; key2: is undecodable; key3: is undecodable; look at" in str(error.value)
    assert not is_complete(run, SHARD)


def test_a_changed_table_is_left_to_the_driver_which_names_it(run):
    commit_all(run, [0, 2, 4])
    next(Path(run.parts(SHARD)).glob("*.samples.parquet")).write_bytes(b"changed")

    assert not complete_if_covered(run, SHARD, run.config())
    with pytest.raises(RunError, match=r"samples\.parquet: is not the file that was committed"):
        complete_shard(run, SHARD, run.config())


def test_a_table_that_cannot_be_written_is_left_to_the_driver_which_meets_it(run):
    commit_all(run, [0, 2, 4])
    Path(f"{run.parts(SHARD)}.samples.parquet").mkdir()

    assert not complete_if_covered(run, SHARD, run.config())
    with pytest.raises(OSError, match=r"00000\.samples\.parquet"):
        complete_shard(run, SHARD, run.config())


@pytest.mark.parametrize(("module", "name"), [(completion, "read_commit"), (tables, "checked_table")])
def test_one_that_was_slower_than_another_is_not_told_of_files_that_are_gone(run, monkeypatch, module, name):
    commit_all(run, [0, 2, 4])

    def read_late(*args: object) -> object:
        monkeypatch.undo()
        fold(run, SHARD, [Unit(SHARD, 0, 2), Unit(SHARD, 2, 4)])
        shutil.rmtree(run.parts(SHARD), ignore_errors=True)
        return getattr(module, name)(*args)

    monkeypatch.setattr(module, name, read_late)

    complete_shard(run, SHARD, run.config())

    assert is_complete(run, SHARD)
