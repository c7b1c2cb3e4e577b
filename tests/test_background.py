import signal
import threading
import time
from contextlib import suppress
from types import FrameType

import pytest

from capfilt.background import in_background, map_in_threads


@pytest.mark.parametrize("error", [None, KeyError, KeyboardInterrupt])
def test_work_in_the_background_ends_with_the_job_however_it_ends(error):
    began, ended = threading.Event(), threading.Event()

    def work(done: threading.Event) -> None:
        began.set()
        done.wait()
        ended.set()

    with suppress(KeyError, KeyboardInterrupt), in_background(work):
        assert began.wait(60)
        assert not ended.is_set()
        if error:
            raise error
    assert ended.is_set()


@pytest.mark.parametrize("begins", [True, False])
def test_it_ends_too_if_a_signal_comes_while_it_begins(monkeypatch, begins):
    ended, start = threading.Event(), threading.Thread.start

    def work(done: threading.Event) -> None:
        done.wait()
        ended.set()

    def interrupted(thread: threading.Thread) -> None:
        if begins:
            start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", interrupted)
        with in_background(work):
            pass
    assert ended.is_set() == begins


def test_calls_wait_together_and_their_results_keep_the_order():
    together = threading.Barrier(3, timeout=60)

    assert map_in_threads(lambda item: (together.wait(), item)[1], "abc") == ["a", "b", "c"]


def test_the_error_of_a_call_is_raised():
    with pytest.raises(ZeroDivisionError):
        map_in_threads(lambda item: 1 // item, [1, 0])


def test_it_is_waited_for_though_a_signal_comes_meanwhile():
    """What it is about to write must not come after what the job writes at its end."""
    ended = threading.Event()

    def work(done: threading.Event) -> None:
        done.wait()
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        time.sleep(0.2)
        ended.set()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), in_background(work):
            pass
        assert ended.is_set()
    finally:
        signal.signal(signal.SIGUSR1, before)
