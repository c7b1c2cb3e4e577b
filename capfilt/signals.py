"""End a command or a job in good order when it is asked to end."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_code: int | None = None  # the exit code, once a signal has asked the process to end
_FIRST = b"\nstopping: the units in hand finish first; press Ctrl-C again to end at once\n"


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit within the block, so that what was begun is ended as after Ctrl-C.

    Ray's own handler aborts the process. Under nohup, SIGHUP stays ignored. Only the main thread can set handlers; in
    others, nothing changes.
    """
    global _code
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, _exit) for number in numbers}
    try:
        yield
    except SystemExit:
        if _code is None:
            raise
        raise SystemExit(_code) from None  # Ray, if interrupted in a wait, raises its own with code 1
    finally:
        ending = _code is not None and before[signal.SIGTERM] is _exit  # the block around this one has its own to end
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ending else handler)
        if not ending:
            _code = None


@contextmanager
def stop_on_interrupt(ask: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C within the block ask for a stop; a second one interrupts as usual.

    SIGTERM is left alone: whoever sends it (Ray, Slurm, Kubernetes) kills some seconds later, so that there is no time
    to finish units.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield  # in the background of a shell SIGINT is ignored, and a program's own handler is not ours to replace
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
    """End the main thread through exit_on_sigterm, if that is in effect; the signal wakes the thread if it waits."""
    main = threading.main_thread().ident
    if main is not None and signal.getsignal(signal.SIGTERM) is _exit:
        signal.pthread_kill(main, signal.SIGTERM)


def _exit(number: int, frame: FrameType | None) -> None:
    global _code
    signal.signal(number, signal.SIG_IGN)  # a second one must not cut an orderly end short
    signal.alarm(0)  # nor must Ray's core, whose handler, if the core is being built, ran first: it aborts in 3 s
    _code = 128 + number  # as a shell reports it
    raise SystemExit(_code)
