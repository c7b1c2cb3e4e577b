import time

import pytest

from capfilt.errors import WorkerError
from capfilt.records import Shard, Unit
from workers.attempts import MOST_LOSSES, Attempts, Case

UNITS = [Unit(Shard(str(n), f"{n}.tar", 0, "", 8), 0, 8) for n in range(4)]


def take(attempts: Attempts, place: str = "a", idle: bool = True, alternative: bool = True) -> Case:
    case = attempts.take(place, idle=idle, alternative=alternative)
    assert case is not None
    return case


@pytest.fixture
def attempts() -> Attempts:
    return Attempts(UNITS, attempts=2, strikes=3)


def test_units_are_tried_in_order_and_suspects_last(attempts):
    attempts.fail(take(attempts), "no", "b")

    assert [take(attempts).unit.shard.id for _ in range(4)] == ["1", "2", "3", "0"]
    assert not attempts


def test_a_suspect_waits_for_an_idle_place(attempts):
    for _ in range(3):
        take(attempts)
    attempts.fail(take(attempts), "no", "b")

    assert attempts.take("a", idle=False, alternative=True) is None
    assert take(attempts).unit == UNITS[3]


def test_a_suspect_avoids_where_it_failed_unless_there_is_nothing_else(attempts):
    for _ in range(3):
        take(attempts)
    attempts.fail(take(attempts), "no", "a")

    assert attempts.take("a", idle=True, alternative=True) is None
    assert take(attempts, "a", alternative=False).unit == UNITS[3]


def test_a_delayed_suspect_waits(attempts):
    for _ in range(3):
        take(attempts)
    attempts.fail(take(attempts), "disk full", "b", delay=0.05)

    assert attempts.take("a", idle=True, alternative=True) is None
    time.sleep(0.06)
    assert take(attempts).unit == UNITS[3]


def test_a_unit_is_given_up_after_its_last_attempt():
    attempts = Attempts(UNITS[:1], attempts=2, strikes=3)

    attempts.fail(take(attempts), "no", "a")
    attempts.fail(take(attempts, "b"), "no again", "b")

    assert attempts.failed == ["0.tar, samples 0 to 8: tried 2 times: no again"]
    assert not attempts


def test_faults_of_the_data_are_final_and_no_strikes(attempts):
    for _ in range(4):
        attempts.fail(take(attempts), "cut short", "a", data=True)

    assert len(attempts.failed) == 4
    assert "tried once: cut short" in attempts.failed[0]


def test_first_attempts_that_only_ever_fail_stop_the_job(attempts):
    attempts.fail(take(attempts), "no", "a")
    attempts.fail(take(attempts), "no", "a")
    with pytest.raises(WorkerError, match="3 units failed one after the other; the last: KeyError"):
        attempts.fail(take(attempts), "KeyError", "a")


def test_a_success_wipes_out_the_strikes(attempts):
    for _ in range(4):
        attempts.fail(take(attempts), "no", "b")
        attempts.succeed()


def test_a_unit_given_back_is_next_and_unblamed(attempts):
    case = take(attempts)
    attempts.give_back(case)

    assert take(attempts) is case
    assert case.failures == 0


def test_lost_nodes_are_no_fault_of_a_unit_but_not_for_ever(attempts):
    case = take(attempts)
    for _ in range(MOST_LOSSES):
        attempts.lose(case, "node lost", "a")
        assert take(attempts) is case
    assert case.failures == 0

    attempts.lose(case, "node lost", "a")
    assert case.failures == 1
