import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from capfilt.prefetch import AHEAD, prefetch


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(0, 4, []), (3, 4, [3]), (4, 4, [4]), (9, 4, [4, 4, 1]), (40, 4, [4] * 10), (200, 80, [80, 80, 40])],
)
def test_items_come_in_order_and_in_whole_batches(count, size, sizes):
    def slow_when_even(item: int) -> int:
        time.sleep(0.002 * (item % 2 == 0))
        return item * 10

    batches = list(prefetch(range(count), size, slow_when_even, threads=3))

    assert [len(batch) for batch in batches] == sizes
    assert [item for batch in batches for item in batch] == [n * 10 for n in range(count)]


def test_reading_stays_a_bounded_number_of_batches_ahead():
    read = []

    def items():
        for n in range(1000):
            read.append(n)
            yield n

    batches, most, end = prefetch(items(), 2, str, threads=1), 2 * (AHEAD + 1), time.monotonic() + 60
    next(batches)
    while len(read) < most:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.1)  # in which it could read more
    batches.close()

    assert len(read) == most


def test_while_a_batch_is_in_use_the_next_ones_are_made():
    """The caller asks for nothing until all of them are there: it could be in a model all that time."""
    made = threading.Semaphore(0)

    def prepare(item: int) -> int:
        made.release()
        return item

    with closing(prefetch(range(1000), 4, prepare, threads=2)) as batches:
        next(batches)
        assert all(made.acquire(timeout=10) for _ in range(4 * (AHEAD + 1)))


def test_items_of_a_batch_are_prepared_at_the_same_time():
    together = threading.Barrier(4)

    assert list(prefetch(range(8), 4, lambda item: together.wait(timeout=10) < 4, threads=4)) == [[True] * 4] * 2


@pytest.mark.parametrize("place", ["reading", "preparing"])
def test_an_error_comes_after_the_batches_before_it(place):
    def items():
        for n in range(10):
            if place == "reading" and n == 5:
                raise OSError("the disk went away")
            yield n

    def prepare(n: int) -> int:
        if place == "preparing" and n == 5:
            raise OSError("the disk went away")
        return n

    batches = prefetch(items(), 2, prepare, threads=2)

    assert [next(batches), next(batches)] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="the disk went away"):
        next(batches)


@pytest.mark.parametrize("end", ["closed", "left", "reading", "preparing"])
def test_no_thread_outlives_the_batches(end):
    before = set(threading.enumerate())

    def items():
        yield from range(5)
        if end == "reading":
            raise OSError("the disk went away")
        yield from range(5, 100)

    batches = prefetch(items(), 4, lambda item: 1 // (item - 5) if end == "preparing" else item, threads=4)
    next(batches)
    if end == "closed":
        batches.close()
    elif end == "left":
        del batches
    else:
        with pytest.raises((OSError, ZeroDivisionError)):
            next(batches)

    assert set(threading.enumerate()) <= before


def test_what_is_left_of_a_piece_is_not_prepared_for_nobody(monkeypatch):
    prepared, begun, ended, shutdown = [], threading.Event(), threading.Event(), ThreadPoolExecutor.shutdown

    def prepare(item: int) -> int:
        prepared.append(item)
        if item == 100:  # the first of the second batch, which one thread prepares in pieces of 25
            begun.set()
            ended.wait()
        return item

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", lambda pool, **how: ended.set() or shutdown(pool, **how))
    batches = prefetch(range(200), 100, prepare, threads=1)
    next(batches)
    begun.wait()
    batches.close()

    assert prepared == list(range(101))
