import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from capfilt import storage
from capfilt.records import Shard, Unit
from capfilt.runs import Run
from capfilt.runs.status import Board
from pipelines import follow
from pipelines.follow import Follower
from workers.events import Event, State

UNIT = Unit(Shard("7", "7.tar", 0, "", 8), 0, 8)
DEATH = Event("failed", UNIT, "death", "its worker died", 1, "pid 7 on 10.0.0.5")


def journal(folder: Path) -> list[dict[str, object]]:
    path = folder / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def follower(tmp_path) -> Follower:
    return Follower(Run(str(tmp_path), "m"))


def test_a_failure_is_counted_and_noted_with_when_where_and_why(tmp_path, follower):
    with follower:
        follower.hear(DEATH)

    (entry,) = journal(tmp_path)
    assert str(entry.pop("time")).startswith("20")
    assert entry == {
        "event": "failed",
        "shard": "7",
        "unit": "00000000-00000008",
        "attempt": 1,
        "cause": "death",
        "place": "pid 7 on 10.0.0.5",
        "reason": "its worker died",
    }
    assert follower.tally.failures == {"death": 1}


def test_the_board_is_told_of_the_workers_as_long_as_there_are_any(tmp_path):
    board = Board(str(tmp_path))
    with Follower(Run(str(tmp_path), "m"), board) as follower:
        follower.see(State(ready=1, wanted=2))
        assert (board.record.ready, board.record.wanted) == (1, 2)

    assert (board.record.ready, board.record.wanted) == (0, 0)


def test_what_follows_a_failure_is_noted_but_is_no_failure_of_its_own(tmp_path, follower):
    with follower:
        for what in ("failed", "narrowed", "quarantined", "given_up"):
            follower.hear(Event(what, UNIT, "deadline", "not done", 3))

    assert [entry["event"] for entry in journal(tmp_path)] == ["failed", "narrowed", "quarantined", "given_up"]
    assert follower.tally.failures == {"deadline": 1}


def test_outages_are_counted_and_not_noted_since_the_journal_may_lie_where_they_are(tmp_path, follower):
    with follower:
        follower.hear(Event("outage", UNIT, "store", "503", 1))

    assert journal(tmp_path) == []
    assert follower.tally.failures == {"store": 1}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hear(follower: Follower, counts: range) -> None:
    for count in counts:
        follower.hear(Event("failed", UNIT, "death", "its worker died", count))
        follower.see(State())


def test_the_journal_is_added_to_now_and_then(tmp_path, follower, monkeypatch):
    monkeypatch.setattr(follow, "JOURNAL_EVERY", 0.05)
    with follower:
        for end in (2, 4):
            hear(follower, range(end - 1, end + 1))
            wait_for(lambda end=end: len(journal(tmp_path)) == end)

    assert [entry["attempt"] for entry in journal(tmp_path)] == [1, 2, 3, 4]


def test_a_job_that_is_interrupted_loses_no_line(tmp_path, follower):
    def work() -> None:
        with follower:
            hear(follower, range(100))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()

    assert [entry["attempt"] for entry in journal(tmp_path)] == list(range(100))


def test_a_store_that_is_out_holds_up_nobody_and_gets_every_line_when_it_is_back(tmp_path, s3, monkeypatch):
    monkeypatch.setattr(follow, "JOURNAL_EVERY", 0.05)
    run = Run(f"s3://bucket{tmp_path}", "m")
    with Follower(run) as follower:
        with s3.misbehaving("busy", only="/journal/"), s3.counting() as seen:
            hear(follower, range(1))
            wait_for(lambda: any(request.fault for request in seen))
            hear(follower, range(1, 5))
            assert {request.fault for request in seen} == {"busy"}  # it is still being asked
        wait_for(lambda: storage.list_files(f"{run.root}/journal"))

    (file,) = storage.list_files(f"{run.root}/journal")
    lines = storage.read_bytes(f"{run.root}/journal/{file}").splitlines()
    assert [json.loads(line)["attempt"] for line in lines] == list(range(5))


def test_no_credentials_get_into_the_journal(tmp_path, follower):
    reason = "https://u:open-sesame@store/7.tar?sig=open-sesame is gone"
    with follower:
        follower.hear(Event("given_up", UNIT, "exception", reason, 1))

    assert "open-sesame" not in (tmp_path / "journal.jsonl").read_text()


def test_what_is_waited_for_is_the_last_state_that_was_seen(follower):
    follower.see(State(in_hand=((UNIT.shard.url, "pid 7"),), ready=1, wanted=2))

    assert str(follower.state) == "1 of 2 workers ready; in hand: 7.tar (pid 7)"
