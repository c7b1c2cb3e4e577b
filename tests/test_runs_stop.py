"""A request to stop reaches the driver that is at work, and no other."""

import sys
import threading
import time
from contextlib import ExitStack

import pytest

from capfilt.errors import RunError
from capfilt.runs import stop as stops
from capfilt.runs.lease import hold_lease
from capfilt.runs.stop import Stop, hear_stop, heed_stop, request_stop, stop_path, stop_requested


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(stops, "POLL", 0.02)


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the request is not heard"
        time.sleep(0.01)


def test_a_request_is_heard_and_removed_with_the_driver(tmp_path):
    ended = threading.Event()
    with heed_stop(str(tmp_path), ended.set) as stop:
        assert not stop.asked
        request_stop(str(tmp_path))
        wait_until(lambda: stop.asked)
        assert stop_requested(str(tmp_path))

    assert not ended.is_set()
    assert list(tmp_path.iterdir()) == []


def test_a_request_that_comes_too_late_for_the_driver_is_known_to_whoever_started_it(tmp_path, monkeypatch):
    monkeypatch.setattr(stops, "POLL", 600)
    stop = Stop()
    with heed_stop(str(tmp_path), pytest.fail, stop=stop):
        request_stop(str(tmp_path))
    assert stop.asked
    assert not stop_requested(str(tmp_path))


def test_a_signal_handler_may_ask_whatever_it_interrupts():
    """A handler runs between any two steps of the program, and so may it here, where each step is told of."""
    stop = Stop()

    def ask() -> None:
        sys.setprofile(lambda *_: stop.ask())
        stop.ask()
        sys.setprofile(None)

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    asker.join(timeout=60)
    assert not asker.is_alive(), "it waits for itself"
    assert stop.asked


def test_a_second_request_ends_the_driver(tmp_path):
    ended = threading.Event()
    with heed_stop(str(tmp_path), ended.set) as stop:
        request_stop(str(tmp_path))
        wait_until(lambda: stop.asked)
        request_stop(str(tmp_path), at_once=True)
        wait_until(ended.is_set)


def test_a_request_that_was_meant_for_another_driver_is_not_heeded(tmp_path):
    request_stop(str(tmp_path), at_once=True)
    with hold_lease(str(tmp_path)), heed_stop(str(tmp_path), pytest.fail) as stop:
        assert not stop_requested(str(tmp_path))
        time.sleep(0.1)
        assert not stop.asked


def test_a_request_to_a_driver_that_has_only_just_taken_its_lease_is_heard(tmp_path):
    with hold_lease(str(tmp_path)):
        request_stop(str(tmp_path))
        with heed_stop(str(tmp_path), pytest.fail) as stop:
            wait_until(lambda: stop.asked)


def test_a_driver_that_is_refused_leaves_a_request_to_the_one_at_work(tmp_path):
    with hold_lease(str(tmp_path)):
        request_stop(str(tmp_path))
        with pytest.raises(RunError, match="another driver"), hold_lease(str(tmp_path)):
            pass
        assert stop_requested(str(tmp_path))


def test_a_driver_that_is_forced_off_leaves_a_request_to_its_successor(tmp_path):
    with hold_lease(str(tmp_path)) as first, ExitStack() as successor:
        with heed_stop(str(tmp_path), pytest.fail, lambda: first.is_held):
            successor.enter_context(hold_lease(str(tmp_path), force=True))
            request_stop(str(tmp_path))
        assert stop_requested(str(tmp_path))


def test_a_driver_that_is_asked_otherwise_tells_its_workers_by_the_file(tmp_path):
    with heed_stop(str(tmp_path), pytest.fail) as stop, hear_stop(str(tmp_path)) as heard:
        stop.ask()
        wait_until(lambda: heard.asked)
    assert not stop_requested(str(tmp_path))


def test_a_driver_that_is_forced_off_leaves_no_file_for_its_successor(tmp_path):
    with ExitStack() as successor:
        with hold_lease(str(tmp_path)) as first:
            looks = []

            def is_ours() -> bool:
                looks.append(first.is_held)
                return looks[-1]

            with heed_stop(str(tmp_path), pytest.fail, is_ours) as stop:
                successor.enter_context(hold_lease(str(tmp_path), force=True))
                stop.ask()
                wait_until(lambda: len(looks) > 1)
        assert not any(looks)
        assert not stop_requested(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"please", b"[]", b"[" * 100_000, b'{"at_once": "no"}'])
def test_a_file_made_by_hand_asks_for_a_stop_in_good_order(tmp_path, content):
    ended = threading.Event()
    with heed_stop(str(tmp_path), ended.set) as stop:
        (tmp_path / "stop.json").write_bytes(content)
        wait_until(lambda: stop.asked)
    assert not ended.is_set()  # which the look that hears of it would have done, before its thread is joined


def test_a_look_that_fails_is_followed_by_others(tmp_path, caplog):
    (tmp_path / "stop.json").mkdir()  # cannot be read
    with heed_stop(str(tmp_path), pytest.fail) as stop:
        wait_until(lambda: "a request to stop cannot be looked for" in caplog.text)
        (tmp_path / "stop.json").rmdir()
        request_stop(str(tmp_path))
        wait_until(lambda: stop.asked)


def test_a_request_can_lie_on_an_object_store():
    with heed_stop("memory://stopped", pytest.fail) as stop:
        request_stop("memory://stopped")
        wait_until(lambda: stop.asked)
    assert not stop_requested("memory://stopped")
    assert stop_path("memory://stopped") == "memory://stopped/stop.json"


def test_a_worker_hears_a_request_and_leaves_it_to_its_driver(tmp_path):
    with hear_stop(str(tmp_path)) as stop:
        assert not stop.asked
        request_stop(str(tmp_path))
        wait_until(lambda: stop.asked)
    assert stop_requested(str(tmp_path))
