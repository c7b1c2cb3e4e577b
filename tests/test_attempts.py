import time
from collections.abc import Iterator

import pytest

from capfilt.errors import WorkerError
from capfilt.records import Shard, Unit
from workers import attempts as rules
from workers.attempts import BACKOFF, MAX_LOSSES, MAX_OUTAGES, Attempts, backoff
from workers.events import State
from workers.faults import Fault, Kind
from workers.isolation import Case

NO = Fault(Kind.SAMPLE, "no", "says no")
NO_DISK = Fault(Kind.STORE, "disk full")

UNITS = [Unit(Shard(str(n), f"{n}.tar", 0, "", 8), 0, 8) for n in range(4)]


def take(attempts: Attempts, place: str = "a", idle: bool = True, alternative: bool = True) -> Case:
    case = attempts.take(place, idle=idle, alternative=alternative)
    assert case is not None
    return case


@pytest.fixture
def attempts() -> Attempts:
    return Attempts(UNITS, tries=2, strikes=3)


def test_units_are_tried_in_order_and_suspects_last(attempts):
    attempts.fail(take(attempts), NO, "b")

    assert [take(attempts).unit.shard.id for _ in range(4)] == ["1", "2", "3", "0"]
    assert not attempts


@pytest.mark.usefixtures("patient")
def test_it_is_told_how_many_units_wait_and_for_what(attempts):
    first, second = take(attempts), take(attempts)
    assert attempts.state() == State(waiting=2)
    attempts.fail(first, NO, "b")
    attempts.fail(second, NO_DISK, "b")
    assert attempts.waiting(3) == 3  # which makes the next one
    assert attempts.state() == State(waiting=2, outage=1, suspect=1)


def test_drained_nothing_begins_and_what_fails_is_not_tried_again(attempts):
    case = take(attempts)
    attempts.drain()
    attempts.fail(case, NO, "b")

    assert attempts.take("a", idle=True, alternative=True) is None
    assert not attempts
    assert attempts.failed == []


def test_a_suspect_waits_for_an_idle_place(attempts):
    for _ in range(3):
        take(attempts)
    attempts.fail(take(attempts), NO, "b")

    assert attempts.take("a", idle=False, alternative=True) is None
    assert take(attempts).unit == UNITS[3]


def test_a_suspect_avoids_where_it_failed_unless_there_is_nothing_else(attempts):
    for _ in range(3):
        take(attempts)
    attempts.fail(take(attempts), NO, "a")

    assert attempts.take("a", idle=True, alternative=True) is None
    assert take(attempts, "a", alternative=False).unit == UNITS[3]


@pytest.fixture
def hasty(monkeypatch) -> None:
    monkeypatch.setattr(rules, "BACKOFF", 0.02)


@pytest.fixture
def patient(monkeypatch) -> None:
    monkeypatch.setattr(rules, "BACKOFF", 3600.0)


@pytest.mark.usefixtures("patient")
def test_a_unit_that_met_a_full_disk_waits_is_no_suspect_and_then_comes_first(attempts):
    case = take(attempts)
    attempts.fail(case, NO_DISK, "a")

    assert take(attempts).unit == UNITS[1]
    case.not_before = time.monotonic()
    assert take(attempts, idle=False) is case
    assert case.failures == 0
    assert take(attempts).unit == UNITS[2]


@pytest.mark.usefixtures("patient")
def test_a_suspect_that_was_given_back_or_met_a_full_disk_still_waits_for_an_idle_place():
    attempts = Attempts(UNITS[:1], tries=2, strikes=3)
    case = take(attempts)
    attempts.fail(case, NO, "b")

    attempts.give_back(take(attempts))
    assert attempts.take("a", idle=False, alternative=True) is None
    attempts.fail(take(attempts), NO_DISK, "a")
    case.not_before = time.monotonic()
    assert attempts.take("a", idle=False, alternative=True) is None
    assert take(attempts) is case


@pytest.mark.usefixtures("hasty")
def test_a_disk_that_stays_full_fails_a_unit_in_the_end():
    attempts = Attempts(UNITS[:1], tries=2, strikes=3)
    for _ in range(MAX_OUTAGES):
        while (case := attempts.take("a", idle=True, alternative=False)) is None:
            time.sleep(0.01)
        attempts.fail(case, NO_DISK, "a")

    assert attempts.failed == ["0.tar, samples 0 to 8: tried 6 times: disk full"]


@pytest.mark.usefixtures("patient")
def test_no_further_unit_is_begun_while_many_wait_for_a_store(attempts):
    for _ in range(3):
        attempts.fail(take(attempts), NO_DISK, "a")

    assert attempts.take("a", idle=True, alternative=True) is None
    assert attempts.waiting(9) == 4


@pytest.mark.usefixtures("hasty")
def test_a_store_that_stays_away_stops_the_job(attempts):
    def go_on() -> None:
        while attempts:
            if case := attempts.take("a", idle=True, alternative=True):
                attempts.fail(case, NO_DISK, "a")
            time.sleep(0.005)

    with pytest.raises(WorkerError, match=r"3 units failed in a row; the last: disk full; .*same again"):
        go_on()


def test_a_unit_is_given_up_after_its_last_attempt():
    attempts = Attempts(UNITS[:1], tries=2, strikes=3)

    attempts.fail(take(attempts), NO, "a")
    attempts.fail(take(attempts, "b"), Fault(Kind.SAMPLE, "no again", ""), "b")

    assert attempts.failed == ["0.tar, samples 0 to 8: tried 2 times: no again"]
    assert not attempts


def test_faults_of_the_data_are_final_and_no_strikes(attempts):
    for _ in range(4):
        attempts.fail(take(attempts), Fault(Kind.DATA, "cut short"), "a")

    assert len(attempts.failed) == 4
    assert "tried once: cut short" in attempts.failed[0]


def test_first_attempts_that_only_ever_fail_stop_the_job(attempts):
    attempts.fail(take(attempts), NO, "a")
    attempts.fail(take(attempts), NO, "a")
    with pytest.raises(WorkerError, match="3 units failed in a row; the last: KeyError"):
        attempts.fail(take(attempts), Fault(Kind.SAMPLE, "KeyError"), "a")


def test_a_success_wipes_out_the_strikes(attempts):
    for _ in range(2):
        first, second = take(attempts), take(attempts)
        attempts.fail(first, NO, "b")
        attempts.fail(second, NO, "b")
        attempts.succeed(first)


def test_a_unit_given_back_is_next_and_unblamed(attempts):
    case = take(attempts)
    attempts.give_back(case)

    assert take(attempts) is case
    assert case.failures == 0


def test_lost_nodes_are_no_fault_of_a_unit_but_not_for_ever(attempts):
    case = take(attempts)
    for _ in range(MAX_LOSSES):
        attempts.lose(case, NO, "a")
        assert take(attempts) is case
    assert case.failures == 0

    attempts.lose(case, NO, "a")
    assert case.failures == 1


def test_the_wait_for_a_store_doubles_with_each_outage():
    assert [backoff(outages) / BACKOFF for outages in (1, 2, 3, 4)] == [1, 2, 4, 8]


def test_units_are_made_when_it_is_their_turn():
    made: list[int] = []

    def units() -> Iterator[Unit]:
        for n, unit in enumerate(UNITS):
            made.append(n)
            yield unit

    attempts = Attempts(units(), tries=2, strikes=3)
    assert made == []
    assert attempts.waiting(2) == 2
    case = take(attempts)
    assert made == [0, 1]

    attempts.give_back(case)
    assert [take(attempts).unit for _ in range(3)] == UNITS[:3]
    assert made == [0, 1, 2]
    assert attempts
    take(attempts)
    assert not attempts
