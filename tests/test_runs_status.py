"""The record that a driver writes of how far it is."""

import errno
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from capfilt.errors import ConfigError, FailedUnitsError, StoppedError
from capfilt.runs import status
from capfilt.runs.lease import hold_lease
from capfilt.runs.status import Board, StatusRecord, keep_status, read_status
from capfilt.tally import Tally


def tally(**statuses: int) -> Tally:
    counted = Tally()
    counted.statuses, counted.candidates, counted.kept = Counter(statuses), Counter(web=4), Counter(web=1)
    return counted


def record(root: Path) -> StatusRecord:
    found = read_status(str(root))
    assert found is not None
    return found


def test_a_record_is_there_from_the_start_and_tells_the_end(tmp_path):
    with keep_status(str(tmp_path)) as board:
        assert record(tmp_path).phase == "starting"
        board.begin(samples=40, done=8)
        board.add(8, tally(ok=7, not_an_image=1))
        board.add(8, tally(ok=14, not_an_image=2))

    found = record(tmp_path)
    assert (found.phase, found.samples, found.done, found.done_before, found.units) == ("done", 40, 24, 8, 2)
    assert (found.statuses, found.candidates, found.kept) == ({"ok": 14, "not_an_image": 2}, {"web": 4}, {"web": 1})


def test_a_loop_counts_its_jobs_and_tells_at_once_which_one_it_is_at(tmp_path):
    with keep_status(str(tmp_path)) as board:
        board.enter("round-0/filter", 1, 4)
        found = record(tmp_path)
        assert (found.phase, found.job, found.jobs_done, found.jobs) == ("rounds", "round-0/filter", 1, 4)
    assert record(tmp_path).phase == "done"


def test_it_is_written_while_the_job_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setattr(status, "WRITE_EVERY", 0.02)
    with keep_status(str(tmp_path)) as board:
        board.begin(samples=40, done=0)
        deadline = time.monotonic() + 60
        while record(tmp_path).phase != "bootstrap":
            assert time.monotonic() < deadline, "nothing is written"
            time.sleep(0.01)


@pytest.mark.parametrize(
    ("phase", "at_work"), [("bootstrap", True), ("export", True), ("rounds", True), ("done", False)]
)
def test_the_age_of_a_record_tells_that_the_driver_is_alive_though_nothing_changes(tmp_path, phase, at_work):
    board = Board(str(tmp_path))
    board.set_phase(phase)
    board.record = replace(board.record, time=1.0)
    board.write()

    assert (record(tmp_path).time > 1.0) == at_work


@pytest.mark.parametrize(
    ("error", "phase", "reason"),
    [
        (
            StoppedError("8 samples"),
            "stopped",
            "stopped as asked, and all that is done is committed; to go on, run the same again",
        ),
        (FailedUnitsError(["1.tar: cut\nshort", "2.tar"], "8 samples"), "partly", "1.tar: cut\n2.tar"),
        (FailedUnitsError([*"abc"]), "partly", "a\nb\nc"),
        (FailedUnitsError([*"abcde"]), "partly", "a\nb\nc\nand 2 more, which capfilt logs shows"),
        (ConfigError("no cluster\nthere"), "failed", "no cluster"),
        (SystemExit(143), "ended", "143"),
    ],
)
def test_it_tells_how_a_job_ended_that_was_not_done(tmp_path, error, phase, reason):
    with pytest.raises(type(error)), keep_status(str(tmp_path)):
        raise error

    assert record(tmp_path).phase == phase
    assert record(tmp_path).reason == reason


def test_rate_and_time_left_are_those_of_this_start():
    found = StatusRecord(started=100.0, time=110.0, phase="bootstrap", samples=1000, done=600, done_before=500)

    assert found.rate == 10.0
    assert found.seconds_left == 40.0
    assert StatusRecord(100.0, 110.0, "bootstrap", 1000, 500, 500).seconds_left is None


def test_neither_planning_before_the_units_nor_an_export_behind_them_counts_towards_the_rate(tmp_path, monkeypatch):
    clock = SimpleNamespace(time=lambda: now)
    monkeypatch.setattr(status, "time", clock)
    now = 1000.0
    board = Board(str(tmp_path))
    now = 4600.0  # an hour in which shards were indexed
    board.begin(samples=100, done=0)
    now = 4610.0
    board.add(20, tally(ok=20))
    assert (board.record.rate, board.record.seconds_left) == (2.0, 40.0)
    now = 4650.0
    board.add(80, tally(ok=100))
    board.set_phase("export")
    now = 9000.0
    board.set_phase("done")
    board.write()
    assert record(tmp_path).rate == 2.0


def test_a_driver_whose_run_another_has_taken_leaves_the_record_of_that_one(tmp_path):
    with hold_lease(str(tmp_path)) as lease, keep_status(str(tmp_path), lambda: lease.is_held) as board:
        board.begin(samples=40, done=0)
        with hold_lease(str(tmp_path), force=True), keep_status(str(tmp_path)) as successor:
            successor.begin(samples=40, done=16)
            successor.write()
            board.add(8, tally(ok=8))
            board.write()

            assert (record(tmp_path).done, record(tmp_path).units) == (16, 0)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{}", b"[" * 100_000, b'{"started": 1, "time": 2, "colour": 3}', b'{"started": 1}'),
        *(b'{"started": "1", "time": 2}', b'{"started": 1, "time": 1e400}', b'{"started": 1, "time": 2, "done": "3"}'),
        b'{"started": 1, "time": 2, "kept": [4]}',
    ],
)
def test_what_is_no_record_counts_as_none(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)

    assert read_status(str(tmp_path)) is None


def test_a_full_disk_still_tells_why_a_job_has_failed(tmp_path, monkeypatch):
    """It has no room for a new file, but keeps that of the old one."""

    def full(path: str, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    def job() -> None:
        with keep_status(str(tmp_path)) as board:
            board.set_phase("training", reason="longer than what comes after it" * 9)
            board.write()
            monkeypatch.setattr(status.storage, "publish", full)
            raise OSError(errno.ENOSPC, "No space left on device", "states")

    with pytest.raises(OSError, match="No space"):
        job()

    assert record(tmp_path).phase == "failed"
    assert record(tmp_path).reason == "[Errno 28] No space left on device: 'states'"


def test_a_disk_that_takes_nothing_stops_no_job(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with keep_status(f"{tmp_path}/file/run") as board:
        board.begin(samples=1, done=0)
