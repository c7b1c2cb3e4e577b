"""End a job in good order when it is asked to end."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_FIRST = b"\nstopping: the units in hand finish first; press Ctrl-C again to end at once\n"


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit for a while, so that what was begun is ended as after Ctrl-C.

    Ray's own handler aborts the process. Under nohup SIGHUP stays ignored. Only the main thread can set a handler; in
    another, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, _exit) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_on_interrupt(ask: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C ask for a stop, for a while; a second one interrupts as ever.

    SIGTERM is left alone: who sends it (Ray, Slurm, Kubernetes) waits for seconds and then kills, so that there is no
    time to finish units.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield  # in the background of a shell SIGINT is ignored, and a program's own handler is not ours to take
        return

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        os.write(2, _FIRST)  # a handler must not use the buffers of sys.stderr
        ask()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_process() -> None:
    """End the main thread by exit_on_sigterm, where it is in effect; the signal wakes it if it waits."""
    main = threading.main_thread().ident
    if main is not None and signal.getsignal(signal.SIGTERM) is _exit:
        signal.pthread_kill(main, signal.SIGTERM)


def _exit(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one, as Ray may send when it is shut down, must not cut this short
    raise SystemExit(128 + number)  # as a shell reports it
