"""Stopping a run in good order: a small file in its folder, which the driver looks for next to its lease.

After the first request, units in hand finish and are committed but no other begins, or a training writes its state; a
second request ends the driver at once, which costs only what it had in hand. A request is meant for the driver that is
at work: the next driver removes it before it takes the lease. The driver itself removes it when it ends, if it still
has the lease; one that was forced off leaves the request to its successor.

A driver that is asked in another way, by Ctrl-C or as a job of a loop, writes the file itself: workers on other
machines and capfilt status learn of a request only from the file.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from capfilt import storage
from capfilt.background import in_background

POLL = 2.0  # seconds between two looks at the file

UNITS = "the units in hand finish, and no other begins"
JOBS = "the running job stops as if it were asked itself, and no other job starts"

logger = logging.getLogger(__name__)


class Stop:
    """Whether a driver has been asked to stop. Threads and signal handlers may ask.

    It has no lock: a signal handler may interrupt the code that holds it, and would then wait for itself.
    """

    def __init__(self) -> None:
        self._asked = False

    def ask(self) -> None:
        """Ask that no other unit begins."""
        self._asked = True

    @property
    def asked(self) -> bool:
        """Whether no other unit may begin."""
        return self._asked


@contextmanager
def heed_stop(
    root: str,
    end: Callable[[], None],
    is_ours: Callable[[], bool] = lambda: True,
    meaning: str = UNITS,
    stop: Stop | None = None,
) -> Iterator[Stop]:
    """Look for requests to stop a run within the block. They count from when the driver's lease was written.

    Args:
        root: the run folder.
        end: called, from another thread, when the driver is to end at once.
        is_ours: returns whether the run is still this driver's: else it neither writes nor removes a request.
        meaning: what a stop does to the job, for people.
        stop: set by a request. Give one to learn also of a request that comes too late for the block.
    """
    stop = stop or Stop()
    try:
        with in_background(partial(_watch, root, stop, end, is_ours, meaning)):
            yield stop
    finally:
        if is_ours():
            _forget(stop_path(root), stop)


@contextmanager
def hear_stop(root: str) -> Iterator[Stop]:
    """Look for requests to stop a run within the block, as a worker of it: its driver logs and removes them."""
    stop = Stop()
    with in_background(partial(_listen, root, stop)):
        yield stop


def request_stop(root: str, *, at_once: bool = False) -> None:
    """Ask the driver of a run to stop: when the units in hand are committed, or at once."""
    storage.publish(stop_path(root), json.dumps({"at_once": at_once, "time": time.time()}).encode() + b"\n")


def forget_stop(root: str) -> None:
    """Remove a request that was meant for an earlier driver."""
    storage.remove(stop_path(root))


def stop_requested(root: str) -> bool:
    """Return whether a request waits for the driver of a run."""
    return storage.exists(stop_path(root))


def stop_path(root: str) -> str:
    """Return the path of a request to stop a run."""
    return storage.join(root, "stop.json")


def _watch(
    root: str,
    stop: Stop,
    end: Callable[[], None],
    is_ours: Callable[[], bool],
    meaning: str,
    done: threading.Event,
) -> None:
    while not done.wait(POLL):
        try:
            request = _read(root)
            if request is None and stop.asked and is_ours():
                request_stop(root)
        except OSError as error:  # the next look may do better
            logger.warning("a request to stop cannot be looked for: %s", error)
            continue
        if request is None:
            continue
        if not stop.asked:
            logger.warning("asked to stop: %s", meaning)
            stop.ask()
        if _at_once(request):
            end()
            return


def _read(root: str) -> bytes | None:
    """Return a request to stop a run; None if there is none."""
    try:
        return storage.read_bytes(stop_path(root))
    except FileNotFoundError:
        return None


def _listen(root: str, stop: Stop, done: threading.Event) -> None:
    while not stop.asked and not done.wait(POLL):
        try:
            if stop_requested(root):
                stop.ask()
        except OSError as error:  # the next look may do better
            logger.warning("a request to stop cannot be looked for: %s", error)


def _at_once(request: bytes) -> bool:
    """Return whether a request allows no delay; False if it cannot be read, such as an empty file made by hand."""
    try:
        return json.loads(request)["at_once"] is True
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _forget(path: str, stop: Stop) -> None:
    try:
        if storage.exists(path):
            stop.ask()  # it may have come since the last look
            storage.remove(path)
    except OSError as error:  # must not hide the error that ends the job; the next driver removes it
        logger.warning("the request to stop was not removed: %s", error)
