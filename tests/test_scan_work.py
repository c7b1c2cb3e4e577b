"""Tasks: how shards are cut, and what a dying process costs."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest
from deadly import Deadly
from fakes import write_shard

from capfilt.config import ImageLimits
from capfilt.records import Shard
from capfilt.scan.look import Task
from capfilt.scan.work import BLOCK, TASK, cut_tasks, run_tasks


def tasks(shards: list[Shard], share: float = 1.0):
    return cut_tasks(shards, share, ImageLimits(), Path("/scratch"))


def covered(found) -> list[tuple[str, int]]:
    return [(task.url, n) for task in found for lo, hi in task.spans for n in range(lo, hi)]


def shard(id_: str, samples: int) -> Shard:
    return Shard(id_, f"in/{id_}.tar", 1, "d", samples)


def test_every_sample_is_in_one_task_and_no_task_is_large():
    shards = [shard("a", 0), shard("b", 1), shard("c", TASK + BLOCK + 1)]

    found = tasks(shards)

    assert sorted(covered(found)) == [("in/b.tar", 0), *(("in/c.tar", n) for n in range(TASK + BLOCK + 1))]
    assert max(task.samples for task in found) == TASK
    assert len({task.output for task in found}) == len(found)


def test_a_share_takes_whole_blocks_from_all_shards():
    shards = [shard(f"{n:05d}", 2 * BLOCK) for n in range(50)]

    found = tasks(shards, 0.3)

    assert len(covered(found)) == 30 * BLOCK
    assert all(lo % BLOCK == 0 and hi - lo == BLOCK for lo, hi in chain.from_iterable(task.spans for task in found))
    assert set(covered(tasks(shards, 0.1))) < set(covered(found))


def test_a_sample_that_ends_its_process_costs_its_task_alone_and_is_named(tmp_path):
    paths = [write_shard(tmp_path / f"{n}.tar", [("red", "a"), ("blue", "b")]) for n in range(3)]
    limits = [ImageLimits(), Deadly(), ImageLimits()]
    tasks = [
        Task(path, ((0, 2),), limit, str(tmp_path / f"{n}.parquet"))
        for n, (path, limit) in enumerate(zip(paths, limits, strict=True))
    ]

    found = {outcome.task.url: outcome for outcome in run_tasks(tasks, 2)}

    assert {url: outcome.done for url, outcome in found.items()} == {paths[0]: 2, paths[1]: 0, paths[2]: 2}
    assert found[paths[1]].error == f"{paths[1]}: a sample of 0 to 1 ends the process that decodes it"
    assert not (tmp_path / "1.parquet").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["to the scan", "to its processes too"])
def test_a_scan_that_is_ended_leaves_no_process_and_waits_for_none(tmp_path, number, send):
    path, begun = write_shard(tmp_path / "0.tar", [("red", "a")]), tmp_path / "begun"
    begun.mkdir()
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # not ignored, as in the background
        "from deadly import Stuck; from capfilt.scan.look import Task; from capfilt.scan.work import run_tasks\n"
        f"tasks = [Task({path!r}, ((0, 1),), Stuck({str(begun)!r}), f'{tmp_path}/{{n}}.parquet') for n in range(9)]\n"
        "list(run_tasks(tasks, 2))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    scan = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while len(list(begun.iterdir())) < 2:
        assert scan.poll() is None
        assert time.monotonic() < deadline, "the tasks do not begin"
        time.sleep(0.02)

    try:
        send(scan.pid, number)
        told = scan.communicate(timeout=60)[1]  # which comes to its end when the last of the processes does
    finally:
        with suppress(ProcessLookupError):
            os.killpg(scan.pid, signal.SIGKILL)

    assert scan.returncode == -number
    assert told.count(b"Traceback") == (number == signal.SIGINT)
