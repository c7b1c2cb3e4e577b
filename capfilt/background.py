"""Work in other threads: tasks that run as long as a job does, and calls that wait for a store."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

MAX_CALLS = 32  # calls at once; they wait for the store far more than they compute

T = TypeVar("T")
U = TypeVar("U")


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run work in a thread for the length of the block; at the end its event is set, and the block waits for it.

    It waits on although a signal comes: what the thread is writing must not be written after the job's last word. A
    second signal ends that too.
    """
    done, ended = threading.Event(), threading.Event()

    def run() -> None:
        try:
            work(done)
        finally:
            ended.set()

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()  # a signal may end the block while this waits for the thread
        yield
    finally:
        done.set()
        if thread.is_alive():
            try:
                ended.wait()  # not join: behind a signal, that of Python 3.11 and 3.12 takes the thread for ended
            finally:
                ended.wait()


def map_in_threads(call: Callable[[T], U], items: Iterable[T]) -> list[U]:
    """Return the result of a call for each item, in their order; many calls wait for the store at once."""
    with ThreadPoolExecutor(MAX_CALLS) as pool:
        return list(pool.map(call, items))
