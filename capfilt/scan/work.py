"""Cut shards into tasks, and run them in processes: a file that kills its decoder costs one task, and is reported."""

import hashlib
import math
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from capfilt.config import ImageLimits
from capfilt.logs import LogSettings
from capfilt.records import Shard
from capfilt.scan.look import Outcome, Task, look

BLOCK = 250  # samples that are drawn together, since neighbours are cheap to read
TASK = 5_000  # most samples of a task


def cut_tasks(
    shards: Sequence[Shard], share: float, limits: ImageLimits, folder: Path, languages: bool = False
) -> list[Task]:
    """Return the tasks that look at a share of the samples, in blocks drawn by the shard's id and their position.

    A smaller share is part of a larger one.
    """
    blocks = [(shard, lo) for shard in shards for lo in range(0, shard.samples, BLOCK)]
    by_chance = sorted(blocks, key=lambda block: hashlib.sha256(f"{block[0].id}/{block[1]}".encode()).digest())
    drawn = {(shard.id, lo) for shard, lo in by_chance[: math.ceil(share * len(blocks))]}
    tasks: list[Task] = []
    for shard in shards:
        starts = [lo for lo in range(0, shard.samples, BLOCK) if (shard.id, lo) in drawn]
        for first in range(0, len(starts), TASK // BLOCK):
            some = starts[first : first + TASK // BLOCK]
            spans = tuple((lo, min(lo + BLOCK, shard.samples)) for lo in some)
            tasks.append(Task(shard.url, spans, limits, str(folder / f"{len(tasks):06d}.parquet"), languages))
    return tasks


def run_tasks(tasks: Sequence[Task], workers: int) -> Iterator[Outcome]:
    """Yield the outcome of each task. With one worker, this process does the work."""
    if workers == 1:
        yield from map(look, tasks)
        return
    left = deque(tasks)
    while left:
        with _pool(workers) as pool:
            suspects = yield from _until_one_dies(pool, left, 2 * workers)
        for task in suspects:
            yield _alone(task)


def _until_one_dies(pool: ProcessPoolExecutor, left: "deque[Task]", most: int) -> Generator[Outcome, None, list[Task]]:
    """Run tasks until none is left or a process dies; return the tasks in hand at that time."""
    in_hand: dict[Future[Outcome], Task] = {}
    while left or in_hand:
        try:
            while left and len(in_hand) < most:
                in_hand[pool.submit(look, left[0])] = left[0]
                left.popleft()
        except BrokenProcessPool:
            return list(in_hand.values())
        for future in wait(in_hand, return_when=FIRST_COMPLETED).done:
            try:
                outcome = future.result()
            except BrokenProcessPool:
                return list(in_hand.values())
            del in_hand[future]
            yield outcome
    return []


def _alone(task: Task) -> Outcome:
    """Run a task in a process of its own, and give it up if that process dies too."""
    with _pool(1) as pool:
        try:
            return pool.submit(look, task).result()
        except BrokenProcessPool:
            lo, hi = task.spans[0][0], task.spans[-1][1]
            Path(task.output).unlink(missing_ok=True)
            return Outcome(task, 0, f"{task.url}: a sample of {lo} to {hi - 1} ends the process that decodes it")


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes. An error in the block, such as Ctrl-C, ends them in the middle of their tasks."""
    # spawned, since a fork of a process with threads may hang
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_begin, initargs=(LogSettings.here(),)) as pool:
        try:
            yield pool
        except BaseException:
            for process in pool._processes.values():  # terminate_workers of Python 3.14
                process.terminate()
            raise


def _begin(logs: LogSettings) -> None:
    """Prepare a process of a pool: it ignores Ctrl-C, and ends when its parent ends it or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # else the pool gives it the next task, and stays
    Thread(target=_end_with_parent, daemon=True).start()
    logs.apply()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
