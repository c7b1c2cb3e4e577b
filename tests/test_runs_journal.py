"""The journal of a run, as people read it."""

import json
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
from s3 import Server

from capfilt import storage
from capfilt.errors import RunError
from capfilt.runs import journal
from capfilt.runs.journal import MAX_FILE_BYTES, Journal, read_journal
from capfilt.runs.lease import hold_lease
from capfilt.runs.status import keep_status
from capfilt.runs.stop import request_stop


@pytest.fixture
def far(s3: Server, tmp_path: Path) -> str:
    """The URL of a run on an object store."""
    return f"s3://bucket{tmp_path}"


def told(root: str) -> list[str]:
    """Return the events of a run without their times."""
    return [line.partition("  ")[2] for line in read_journal(root)]


def test_on_a_disk_it_is_a_file_with_a_line_for_each_event(tmp_path):
    writer = Journal(str(tmp_path))
    writer.note("started", units=3)
    writer.note("failed", shard="00000")

    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    times = [datetime.fromisoformat(line.pop("time")) for line in lines]
    assert lines == [{"event": "started", "units": 3}, {"event": "failed", "shard": "00000"}]
    assert times == sorted(times)
    assert [file.name for file in tmp_path.iterdir()] == ["journal.jsonl"]


def test_on_an_object_store_what_is_sent_for_an_event_does_not_grow_with_the_journal(s3, far):
    writer, reason = Journal(far), "r" * 5000
    with s3.counting() as seen:
        for count in range(100):
            writer.note("failed", count=count, reason=reason)
        assert {request.method for request in seen} == {"PUT"}

    sizes = [len(storage.read_bytes(f"{far}/journal/{name}")) for name in storage.list_files(f"{far}/journal")]
    assert sum(sizes) > 7 * MAX_FILE_BYTES
    assert max(sizes) <= MAX_FILE_BYTES
    assert len(sizes) < 10
    assert told(far) == [f"failed  count: {count}  reason: {reason}" for count in range(100)]


def test_lines_that_are_larger_than_a_file_may_be_have_one_of_their_own(far):
    writer = Journal(far)
    for reason in ("a", "b" * MAX_FILE_BYTES, "c"):
        writer.note("failed", reason=reason)

    assert [len(line) for line in told(far)] == [len("failed  reason: ") + size for size in (1, MAX_FILE_BYTES, 1)]


def test_two_drivers_on_an_object_store_lose_no_event_of_each_other(far):
    """The second was forced; the first tells its last events when it stops."""
    first, second = Journal(far), Journal(far)
    first.note("start", driver=1)
    second.note("start", driver=2)
    first.note("failed", driver=1)
    second.note("end", driver=2)

    assert told(far) == ["start  driver: 1", "failed  driver: 1", "start  driver: 2", "end  driver: 2"]


def test_a_journal_that_an_earlier_version_began_on_an_object_store_goes_on(far):
    storage.publish(f"{far}/journal.jsonl", b'{"time": "t0", "event": "start"}\n')
    Journal(far).note("start", samples=3)

    assert told(far) == ["start", "start  samples: 3"]


def test_one_on_an_object_store_is_followed_into_its_next_files(far, monkeypatch):
    monkeypatch.setattr(journal, "POLL", 0.02)
    writer = Journal(far)
    writer.note("start", samples=3)
    lines = []
    with hold_lease(far):
        reading = threading.Thread(target=lambda: lines.extend(read_journal(far, follow=True)))
        reading.start()
        while not lines and reading.is_alive():
            time.sleep(0.01)
        for count in range(3):
            writer.note("failed", count=count, reason="r" * (MAX_FILE_BYTES // 2))
    reading.join()

    assert [line.split("  ")[1:3] for line in lines] == [["start", "samples: 3"]] + [
        ["failed", f"count: {count}"] for count in range(3)
    ]


def test_a_store_that_does_not_take_it_stops_nothing_and_loses_no_event(tmp_path, caplog):
    (tmp_path / "journal.jsonl").mkdir()
    Journal(str(tmp_path)).note("failed", shard="00000")

    (message,) = caplog.messages
    assert message.startswith("not in the journal: {")
    assert '"event": "failed", "shard": "00000"}, because of ' in message


def test_an_event_is_a_line_and_lists_are_below_it(tmp_path):
    (tmp_path / "journal.jsonl").write_text(
        '{"time": "t0", "event": "start", "units": 3, "left_out": ["a.tar", "b.tar"]}\n'
        '{"time": "t1", "eve\n'
        '{"time": "t2", "event": "end", "summary": "one\\ntwo", "failed": []}\n'
        + "[" * 100_000
        + '\n{"time": "t2"}\n5\n{"time": "t3'
    )

    assert list(read_journal(str(tmp_path))) == [
        "t0  start  units: 3  left_out: \n    a.tar\n    b.tar",
        '{"time": "t1", "eve',
        "t2  end  summary: one\n    two",
        "[" * 100_000,
        '{"time": "t2"}',
        "5",
    ]


def test_of_a_loop_it_is_that_of_the_job_it_is_at(tmp_path):
    (tmp_path / "round-0" / "bootstrap").mkdir(parents=True)
    (tmp_path / "round-0" / "bootstrap" / "journal.jsonl").write_text('{"time": "t0", "event": "start"}\n')
    with keep_status(str(tmp_path)) as board:
        board.enter("round-0/bootstrap", 2, 4)
        assert list(read_journal(str(tmp_path))) == ["t0  start"]
        board.enter("round-0/pretrain", 3, 4)
        with pytest.raises(RunError, match=r"round-0/pretrain/journal\.jsonl: not found; capfilt bootstrap writes it"):
            next(read_journal(str(tmp_path)))


@pytest.mark.parametrize("stopping", [False, True])
def test_it_is_followed_until_the_driver_has_ended(tmp_path, monkeypatch, stopping):
    monkeypatch.setattr(journal, "POLL", 0.02)
    path = tmp_path / "journal.jsonl"
    path.write_text('{"time": "t0", "event": "start"}\n')

    def end() -> None:
        time.sleep(0.2)
        with path.open("a") as file:
            file.write('{"time": "t1", "event": "end"}\n')
        lease.__exit__(None, None, None)

    lease = hold_lease(str(tmp_path))
    lease.__enter__()
    (tmp_path / "status.json").write_text('{"started": 1, "time": 2, "phase": "done"}')
    if stopping:
        request_stop(str(tmp_path))
    ending = threading.Thread(target=end)
    ending.start()

    assert list(read_journal(str(tmp_path), follow=True)) == ["t0  start", "t1  end"]
    ending.join()


def test_a_folder_without_a_journal_is_told(tmp_path):
    with pytest.raises(RunError, match=r"journal\.jsonl: not found; capfilt bootstrap writes it"):
        list(read_journal(str(tmp_path)))
