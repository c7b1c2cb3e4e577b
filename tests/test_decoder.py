"""Decoding apart from the models, on a real Ray: the same batches, and nothing lost when a decoder is."""

import os
import signal
import threading
import time
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import ray
from drivers import tables
from fakes import NAMES, build_fakes, job_config, mixed_shards
from ray._private.state import actors

from capfilt.batches import Prepared, read_batches
from capfilt.errors import ConfigError, ShardError, WorkerError
from capfilt.planning import plan_shards
from capfilt.records import Held, Unit
from capfilt.runs import Run, start_run
from capfilt.shards import find_shards
from pipelines import bootstrap
from workers import decoder
from workers.bootstrap_worker import BootstrapWorker
from workers.decoder import start_decoders
from workers.slots import start_actor, units_in_hand

pytestmark = pytest.mark.usefixtures("ray_cluster")

SIDES = (8, 6)
APART = {"workers": 2, "cpus_per_worker": 0.5, "decode_cpus": 0.25}


@pytest.fixture
def planned(tmp_path) -> tuple[Run, Unit]:
    """A run, and a unit over the samples 4 to 18 of its first shard, one of them held."""
    mixed_shards(tmp_path / "in", shards=1)
    config = job_config(tmp_path)
    run = start_run(config, NAMES)
    (shard,) = plan_shards(run, find_shards(config.input))
    return run, Unit(shard, 4, 19, (Held(7, "ends its worker"),))


def content(batches: list[list[Prepared]]) -> list[list[tuple[object, ...]]]:
    """Return what batches hold, comparable."""
    return [
        [(one.record, one.text, one.for_captioner.tolist(), one.for_filter.tolist()) for one in batch]
        for batch in batches
    ]


def test_batches_are_those_that_the_worker_would_make_itself(tmp_path, planned):
    (run, unit), config = planned, job_config(tmp_path, cluster=APART)
    expected = list(read_batches(config, run, unit, SIDES))

    found = list(start_decoders(config, run)(unit, SIDES))

    assert content(found) == content(expected)
    assert [len(batch) for batch in found] == [4, 4, 4, 3]
    assert found[0][0].for_captioner.dtype == np.uint8


def test_an_error_of_the_shard_arrives_as_it_was_raised(tmp_path, planned):
    run, unit = planned
    batches = start_decoders(job_config(tmp_path, cluster=APART), run)
    mixed_shards(tmp_path / "in", shards=1, samples=20)

    with pytest.raises(ShardError, match="changed since it was planned"):
        list(batches(unit, SIDES))


def test_a_stream_that_is_left_stops_no_other(tmp_path, planned):
    run, unit = planned
    batches = start_decoders(job_config(tmp_path, batch_size=1, cluster=APART), run)

    for _ in range(4):  # more than a decoder does at once
        stream = batches(unit, SIDES)
        assert len(list(islice(stream, 2))) == 2
        stream.close()

    assert len(list(batches(unit, SIDES))) == 15


def test_a_cluster_without_room_for_a_decoder_is_told(tmp_path, planned, monkeypatch):
    monkeypatch.setattr(decoder, "PATIENCE", 1.0)
    with pytest.raises(ConfigError, match="no node has had 32 free CPUs for 1 seconds"):
        start_decoders(job_config(tmp_path, cluster=APART | {"decode_cpus": 64}), planned[0])


class Deadly:
    """A run that ends each process which receives it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


class Unreadable:
    """A run that no process can receive."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("no number",)


@pytest.mark.parametrize(
    ("run", "told"),
    [
        pytest.param(
            Deadly(),
            "the process of a decoder died 3 times while it started: it crashed, or was killed, as the kernel ",
            marks=pytest.mark.slow,
        ),
        (Unreadable(), "no decoder can be started: .*no number"),
    ],
)
def test_a_decoder_that_does_not_come_up_is_told_as_that_and_soon(tmp_path, run, told):
    before = set(actors())  # decoders of other tests end when Python finds that nobody has them
    with pytest.raises(WorkerError, match=told):
        start_decoders(job_config(tmp_path, cluster=APART), run)

    deadline = time.monotonic() + 60  # else Ray starts it for ever, and it keeps its CPUs from others
    while {actor["State"] for name, actor in actors().items() if name not in before} != {"DEAD"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def decoders() -> list[int]:
    """Return the pids of the decoders of this process's Ray, whose raylet is a child of this process."""
    parents, found = {}, []
    for process in Path("/proc").iterdir():
        try:
            status = (process / "stat").read_text().rpartition(")")[2].split()
            parents[int(process.name)] = int(status[1])
            found += [int(process.name)] if (process / "cmdline").read_bytes().startswith(b"ray::_Decoder") else []
        except (OSError, ValueError):  # it has ended, or is no process
            continue
    return [pid for pid in found if parents.get(parents.get(pid, 0)) == os.getpid()]


def test_decoders_end_with_their_worker(tmp_path, planned):
    config = job_config(tmp_path, cluster=APART)
    others = set(decoders())  # of tests before, which may take a while to end
    slot = start_actor(partial(BootstrapWorker, build_fakes, config, planned[0], start_decoders), config.cluster)
    ray.get(slot.building)
    mine = {*decoders()} - others
    assert len(mine) == units_in_hand(config.cluster)

    ray.kill(slot.actor)

    end = time.monotonic() + 30
    while mine & {*decoders()}:
        assert time.monotonic() < end
        time.sleep(0.1)


def test_decoders_that_are_killed_change_no_byte(tmp_path):
    for name in ("calm", "wild"):
        mixed_shards(tmp_path / name / "in")
    bootstrap.run(job_config(tmp_path / "calm"), build_fakes, NAMES, local=True)
    killed = []

    def committed() -> bool:
        folders = os.walk(tmp_path / "wild/run/ledger")  # unlike glob, it passes over a folder that a fold has removed
        return any(name.endswith(".json") for _, _, names in folders for name in names)

    def kill() -> None:
        while len(killed) < 2:
            for pid in decoders()[:1] if committed() else []:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                time.sleep(1.0)
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    config = job_config(tmp_path / "wild", cluster=APART | {"attempts": 5})
    bootstrap.run(config, partial(build_fakes, delay=0.3), NAMES)

    assert tables(tmp_path / "wild") == tables(tmp_path / "calm")
    assert len(killed) == 2
