"""The journal of a run, as people read it."""

import threading
import time

import pytest

from capfilt.errors import RunError
from capfilt.runs import journal
from capfilt.runs.journal import read_journal
from capfilt.runs.lease import hold_lease
from capfilt.runs.status import keep_status


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
        "t2  end  summary: one\n    two  failed: none",
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


def test_it_is_followed_until_the_driver_has_ended(tmp_path, monkeypatch):
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
    ending = threading.Thread(target=end)
    ending.start()

    assert list(read_journal(str(tmp_path), follow=True)) == ["t0  start", "t1  end"]
    ending.join()


def test_a_folder_without_a_journal_is_told(tmp_path):
    with pytest.raises(RunError, match=r"journal\.jsonl: not found; capfilt bootstrap writes it"):
        list(read_journal(str(tmp_path)))
