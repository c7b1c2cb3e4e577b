"""Turns at the models, and the time that each unit had them."""

import contextlib
import threading

import pytest

from capfilt import turns
from capfilt.stopwatch import Stopwatch
from capfilt.turns import Turns


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time, in seconds."""
    time = [100.0]
    monkeypatch.setattr(turns.time, "perf_counter", lambda: time[0])
    return time


def test_a_unit_alone_has_all_of_the_time(now):
    at, clock = Turns(apart=True), Stopwatch()
    with at("caption", clock):
        now[0] += 3
    now[0] += 10
    with at("score", clock):
        now[0] += 2
    assert clock.seconds == {"caption": 3, "score": 2}


def test_two_units_at_work_at_once_have_half_of_it_each(now):
    at, first, second = Turns(apart=True), Stopwatch(), Stopwatch()
    with contextlib.ExitStack() as scoring:
        with at("caption", first):
            now[0] += 1
            scoring.enter_context(at("score", second))
            now[0] += 4
        now[0] += 2
    assert (first.seconds, second.seconds) == ({"caption": 1 + 4 / 2}, {"score": 4 / 2 + 2})


def test_a_model_that_fails_gives_its_turn_back(now):
    at, clock = Turns(apart=True), Stopwatch()
    with contextlib.suppress(ValueError), at("caption", clock):
        now[0] += 1
        raise ValueError("bad batch")
    with at("caption", clock):
        now[0] += 1
    assert clock.seconds == {"caption": 2}


@pytest.mark.parametrize(
    ("stage", "apart", "free"), [("caption", True, False), ("score", True, True), ("score", False, False)]
)
def test_a_model_is_had_by_one_batch_and_both_are_only_where_they_are_apart(stage, apart, free):
    at, had = Turns(apart), threading.Event()

    def have() -> None:
        with at(stage, Stopwatch()):
            had.set()

    other = threading.Thread(target=have)
    with at("caption", Stopwatch()):
        other.start()
        assert had.wait(10 if free else 0.1) == free
    other.join()
    assert had.is_set()
