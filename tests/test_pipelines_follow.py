import json
from pathlib import Path

import pytest

from capfilt.records import Shard, Unit
from capfilt.runs import Run
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
    follower.hear(DEATH)
    follower.close()

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


def test_what_follows_a_failure_is_noted_but_is_no_failure_of_its_own(tmp_path, follower):
    for what in ("failed", "narrowed", "quarantined", "given_up"):
        follower.hear(Event(what, UNIT, "deadline", "not done", 3))
    follower.close()

    assert [entry["event"] for entry in journal(tmp_path)] == ["failed", "narrowed", "quarantined", "given_up"]
    assert follower.tally.failures == {"deadline": 1}


def test_outages_are_counted_and_not_noted_since_the_journal_may_lie_where_they_are(tmp_path, follower):
    follower.hear(Event("outage", UNIT, "store", "503", 1))
    follower.close()

    assert journal(tmp_path) == []
    assert follower.tally.failures == {"store": 1}


def test_the_journal_is_added_to_now_and_then_and_at_the_end(tmp_path, follower, monkeypatch):
    follower.hear(DEATH)
    follower.see(State())
    assert len(journal(tmp_path)) == 1
    follower.hear(DEATH)
    follower.see(State())
    assert len(journal(tmp_path)) == 1  # not again so soon
    monkeypatch.setattr(follow, "JOURNAL_EVERY", 0.0)
    follower.see(State())
    assert len(journal(tmp_path)) == 2
    follower.see(State())
    assert len(journal(tmp_path)) == 2


def test_no_credentials_get_into_the_journal(tmp_path, follower):
    follower.hear(Event("given_up", UNIT, "exception", "https://u:open-sesame@store/7.tar?sig=open-sesame is gone", 1))
    follower.close()

    assert "open-sesame" not in (tmp_path / "journal.jsonl").read_text()


def test_what_is_waited_for_is_the_last_state_that_was_seen(follower):
    follower.see(State(in_hand=((UNIT.shard.url, "pid 7"),), ready=1, wanted=2))

    assert follower.told() == "1 of 2 workers ready; in hand: 7.tar (pid 7)"
