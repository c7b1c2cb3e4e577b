"""Make batches ready ahead of the models."""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from capfilt.logs import bind, bound_fields

AHEAD = 3  # batches in memory, in addition to the one in the models
PIECES = 4  # of a batch for each thread; handing a piece from one thread to another takes some 50 microseconds

T = TypeVar("T")
U = TypeVar("U")


def prefetch(items: Iterable[T], size: int, prepare: Callable[[T], U], threads: int) -> Generator[list[U], None, None]:
    """Yield prepared items in batches, in order, while the next few batches are being made.

    One thread reads the items and others prepare them, so that neither waits for the caller. An error of
    either is raised at its place in the order. Memory is bounded: reading stops when enough is ready. Threads
    suffice, since decoders and `resize` release the interpreter's lock. They end with the generator, however early.

    Args:
        items: read in order, never from two threads at once.
        size: of a batch; the last may be shorter.
        prepare: called from several threads.
        threads: number of threads that prepare.
    """
    source, closed = iter(items), threading.Event()
    # the threads log with the fields of the caller's unit
    executor = partial(ThreadPoolExecutor, initializer=bind, initargs=(bound_fields(),))
    with executor(1) as reader, executor(threads) as pool:

        def load() -> list[Future[list[U]]]:
            batch, piece = list(islice(source, size)), max(1, size // (threads * PIECES))
            return [pool.submit(prepare_all, batch[at : at + piece]) for at in range(0, len(batch), piece)]

        def prepare_all(items: list[T]) -> list[U]:
            return [prepare(item) for item in items if not closed.is_set()]

        ahead = deque(reader.submit(load) for _ in range(AHEAD))
        try:
            while batch := list(chain.from_iterable(future.result() for future in ahead.popleft().result())):
                ahead.append(reader.submit(load))
                yield batch
        finally:
            closed.set()
            reader.shutdown(cancel_futures=True)
            pool.shutdown(cancel_futures=True)
