"""What is told of a unit that fails: by the log, and to those who listen."""

import logging

import pytest

from capfilt.records import Shard, Unit
from workers.attempts import Attempts
from workers.events import Event, State
from workers.faults import Fault, Kind, death
from workers.isolation import Isolation

UNIT = Unit(Shard("7", "7.tar", 0, "", 16), 0, 16)


class Ear:
    """Hears all, and keeps it."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def hear(self, event: Event) -> None:
        self.events.append(event)

    def see(self, state: State) -> None:
        raise AssertionError("attempts tell no state by themselves")


class Place:
    def __str__(self) -> str:
        return "pid 7 on 10.0.0.5"


@pytest.fixture
def ear() -> Ear:
    return Ear()


def told(ear: Ear) -> list[tuple[str, str, int, str]]:
    return [(event.what, event.unit.name, event.count, event.cause) for event in ear.events]


def test_a_unit_that_ends_its_worker_is_followed_down_to_the_sample(ear, caplog):
    isolation = Isolation(8, 1, 16, ear)
    attempts = Attempts([UNIT], tries=1, strikes=10, isolation=isolation, listener=ear)
    while case := attempts.take("a", idle=True, alternative=False):
        held = {one.position for one in case.unit.held}
        if case.unit.lo <= 3 < case.unit.hi and 3 not in held:
            attempts.fail(case, death("gone"), Place())
        else:
            attempts.succeed(case)

    assert told(ear) == [
        ("failed", "00000000-00000016", 1, "death"),
        ("narrowed", "00000000-00000016", 2, "death"),
        ("failed", "00000000-00000008", 1, "death"),
        ("narrowed", "00000000-00000008", 8, "death"),
        ("failed", "00000000-00000008", 1, "death"),
        ("quarantined", "00000000-00000008", 3, "death"),
    ]
    assert [event.failed_attempt for event in ear.events] == [True, False, True, False, True, False]
    assert caplog.records[0].getMessage() == "7.tar, samples 0 to 16: attempt 1 of 1: its worker died: gone"
    assert ear.events[-2].fields == {
        "event": "failed",
        "shard": "7",
        "unit": "00000000-00000008",
        "trial": True,
        "attempt": 1,
        "cause": "death",
        "place": "pid 7 on 10.0.0.5",
    }


def test_every_line_about_a_unit_can_be_found_by_it(ear, caplog):
    attempts = Attempts([UNIT], tries=2, strikes=10, outages=2, listener=ear)
    case = attempts.take("a", idle=True, alternative=False)
    attempts.lose(case, death("the node has died"), Place())
    attempts.fail(case, Fault(Kind.STORE, "disk full", cause="store"), Place())
    attempts.fail(case, Fault(Kind.SAMPLE, "KeyError", "", "exception"), Place())
    attempts.fail(case, Fault(Kind.SAMPLE, "KeyError", "", "exception"), Place())

    assert [(what, count, cause) for what, _, count, cause in told(ear)] == [
        ("lost", 1, "node"),
        ("outage", 1, "store"),
        ("failed", 1, "exception"),
        ("failed", 2, "exception"),
        ("given_up", 2, "exception"),
    ]
    assert {(record.shard, record.unit) for record in caplog.records} == {("7", "00000000-00000016")}
    assert caplog.records[-1].levelno == logging.ERROR
    assert caplog.records[-1].getMessage() == "given up: 7.tar, samples 0 to 16: tried 2 times: KeyError"


def test_a_state_names_some_units_in_hand_and_counts_the_others():
    few = State(in_hand=(("7.tar", "pid 1"), ("8.tar", "pid 2")), ready=1, wanted=2)
    many = State(in_hand=tuple((f"{n}.tar", "pid 1") for n in range(7)), ready=4, wanted=4)

    assert str(few) == "1 of 2 workers ready; in hand: 7.tar (pid 1); 8.tar (pid 2)"
    assert str(many).endswith("2.tar (pid 1); 3.tar (pid 1); and 3 more")
    assert str(State(wanted=2)) == "0 of 2 workers ready; in hand: nothing"
