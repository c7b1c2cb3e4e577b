"""What of a ledger counts is read once, whatever workers do meanwhile."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
from ledgers import SHARD, commit, new_run, record, web

from capfilt import storage
from capfilt.ledger import fold
from capfilt.query import committed
from capfilt.query.committed import draw_shards, read_parts
from capfilt.records import Unit
from capfilt.runs import Run


def worked(folder: Path) -> tuple[Run, list[Unit]]:
    """Return a run of one shard whose two units are committed and not folded."""
    run = new_run(folder)
    return run, commit(run, SHARD, [0, 2, 4], [record(position) for position in range(4)], [web(0, 1.0), web(3, 0.4)])


def test_a_shard_in_work_is_read_unit_by_unit(tmp_path):
    run, _ = worked(tmp_path)

    assert [(part.commit.lo, part.samples.num_rows, part.candidates.num_rows) for part in read_parts(run, SHARD)] == [
        (0, 2, 1),
        (2, 2, 1),
    ]


def test_units_that_are_folded_while_they_are_read_are_read_as_a_complete_shard(tmp_path, monkeypatch):
    run, units = worked(tmp_path)
    real = committed.checked_table

    def folding(path: str, *rest: object) -> pa.Table:
        fold(run, SHARD, units)
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(committed, "checked_table", folding)

    (part,) = read_parts(run, SHARD)
    assert part.samples["position"].to_pylist() == [0, 1, 2, 3]


def test_units_that_are_folded_while_they_are_read_count_once(tmp_path, monkeypatch):
    run, units = worked(tmp_path)
    listed = committed.committed_units

    def fold_after_listing(run, shard):
        names = listed(run, shard)
        fold(run, shard, units)
        return names

    monkeypatch.setattr(committed, "committed_units", fold_after_listing)

    assert [(part.commit.lo, part.commit.hi) for part in read_parts(run, SHARD)] == [(0, 4)]


def test_units_that_are_folded_before_they_are_listed_are_not_missed(tmp_path, monkeypatch):
    run, units = worked(tmp_path)

    def fold_before_listing(folder):
        monkeypatch.undo()
        fold(run, SHARD, units)
        return storage.list_files(folder)

    monkeypatch.setattr(storage, "list_files", fold_before_listing)

    assert [(part.commit.lo, part.commit.hi) for part in read_parts(run, SHARD)] == [(0, 4)]


def test_a_unit_that_a_late_worker_committed_beside_its_pieces_counts_once(tmp_path):
    run = new_run(tmp_path, [SHARD])
    records = [record(position) for position in range(4)]
    for cuts in ([0, 2], [2, 4], [0, 4]):
        commit(run, SHARD, cuts, records, [])

    assert [(part.commit.lo, part.commit.hi) for part in read_parts(run, SHARD)] == [(0, 4)]


def test_each_share_of_the_shards_is_part_of_all_larger_ones_and_holds_one_at_least():
    shards = [replace(SHARD, id=f"{n:05d}") for n in range(20)]

    shares = [draw_shards(shards, n / 20) for n in range(1, 21)]

    assert [len(drawn) for drawn in shares] == list(range(1, 21))
    for small, large in pairwise(shares):
        assert [shard for shard in large if shard in small] == small  # in their order
    assert len(draw_shards(shards, 1e-9)) == 1
    assert draw_shards(shards, 0.5, seed=1) != shares[9]
