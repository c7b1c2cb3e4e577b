"""Units that share the models of a device."""

import errno
import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from drivers import tables
from fakes import NAMES, ColourCaptioner, ColourFilter, build_fakes, job_config, write_shard
from fsspec import filesystem
from torch import Tensor

from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig, Device
from capfilt.errors import CheckpointError
from capfilt.filters import Scores
from capfilt.med.fetch import fetch
from capfilt.planning import plan_shards
from capfilt.records import Caption
from capfilt.runs import start_run
from capfilt.units import cut_units
from workers.bootstrap_worker import (
    GC_THRESHOLD,
    SWITCH_INTERVAL,
    BootstrapWorker,
    make_turns,
    set_threads,
    try_batch_sizes,
)

CPU, GPU = Device(), Device(kind="cuda")


class Watch:
    """Counts the batches that are in a model at once. Those to be scored wait until a second one is captioned."""

    def __init__(self, patience: float) -> None:
        self.patience, self.inside, self.most, self.captioned = patience, 0, 0, 0
        self.second = threading.Event()
        self.lock = threading.Lock()

    @contextmanager
    def batch(self) -> Iterator[None]:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        yield
        with self.lock:
            self.inside -= 1


class Captioner(ColourCaptioner):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def write(self, pixels: Tensor, noise: Sequence[int]) -> list[list[Caption]]:
        with self.watch.batch():
            self.watch.captioned += 1
            if self.watch.captioned == 2:
                self.watch.second.set()
            return super().write(pixels, noise)


class Filter(ColourFilter):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def judge(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Scores]]:
        with self.watch.batch():
            self.watch.second.wait(self.watch.patience)
            return super().judge(pixels, texts)


def build(watch: Watch, config: BootstrapConfig) -> CapFilt:
    return CapFilt(Captioner(watch), Filter(watch))


@pytest.fixture(autouse=True)
def handover():
    """Leave Python's lock to other tests as it was."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("device", "patience", "most"), [(CPU, 0.2, 1), (GPU, 30.0, 2)])
def test_a_gpu_captions_one_batch_while_it_scores_another_and_a_cpu_does_not(tmp_path, device, patience, most):
    cluster = {"gpus_per_worker": int(device.kind == "cuda")}
    config = job_config(tmp_path, batch_size=1, unit_size=1, device=device.model_dump(), cluster=cluster)
    path = write_shard(tmp_path / "in/00000.tar", [("red", "my red car"), ("blue", "click here")])
    run, watch = start_run(config, NAMES), Watch(patience)
    units = [unit for shard in plan_shards(run, [path]) for unit in cut_units(shard, config)]
    worker = BootstrapWorker(partial(build, watch), config, run)

    with ThreadPoolExecutor(2) as pool:
        kept = [result.kept for result in pool.map(worker.run, units)]

    assert kept == [{"web": 1, "synthetic": 1}, {"synthetic": 1}]
    assert watch.most == most


@pytest.mark.parametrize(("device", "apart"), [(CPU, False), (GPU, True)])
def test_models_have_turns_of_their_own_on_a_gpu(device, apart):
    assert make_turns(device).apart == apart


@pytest.fixture(autouse=True)
def process_as_found() -> Iterator[None]:
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(("device", "seconds", "objects"), [(CPU, 5e-3, 700), (GPU, SWITCH_INTERVAL, GC_THRESHOLD)])
def test_beside_a_gpu_threads_let_go_of_the_lock_sooner(device, seconds, objects):
    sys.setswitchinterval(5e-3)
    gc.set_threshold(700)
    set_threads(device)
    assert sys.getswitchinterval() == pytest.approx(seconds)
    assert gc.get_threshold()[0] == objects


@pytest.mark.parametrize(
    "lack", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: out of memory")]
)
def test_memory_that_a_device_lacks_for_the_models_is_told_as_what_may_pass(tmp_path, lack):
    def build_nowhere(config: BootstrapConfig) -> CapFilt:
        raise lack

    config = job_config(tmp_path)
    for work in (partial(BootstrapWorker, run=start_run(config, NAMES)), try_batch_sizes):
        with pytest.raises(OSError, match="no memory for the models on the cpu device: ") as told:
            work(build_nowhere, config)
        assert told.value.errno == errno.ENOMEM


def test_what_was_fetched_for_the_models_is_gone_when_they_are_built(tmp_path):
    """Ray kills its workers, which therefore remove nothing at their exit."""
    filesystem("memory").pipe("/models/a.pth", b"x")
    fetched: list[Path] = []

    def build_from_a_store(config: BootstrapConfig) -> CapFilt:
        fetched.append(fetch("memory://models/a.pth"))
        assert fetched[-1].exists()
        if len(fetched) > 2:
            raise CheckpointError("it cannot be read")
        return build_fakes(config)

    config = job_config(tmp_path)
    BootstrapWorker(build_from_a_store, config, start_run(config, NAMES))
    try_batch_sizes(build_from_a_store, config)
    with pytest.raises(CheckpointError):
        try_batch_sizes(build_from_a_store, config)
    assert [file.parent.exists() for file in fetched] == [False] * 3


def test_units_that_share_a_gpu_leave_the_bytes_of_units_one_after_the_other(tmp_path):
    def ledger(name: str, at_once: int) -> dict[str, bytes]:
        folder = tmp_path / name
        gpu = {"device": GPU.model_dump(), "cluster": {"gpus_per_worker": 1}}
        config = job_config(folder, batch_size=2, unit_size=2, **gpu)
        colours = [(colour, f"a {colour} thing") for colour in ("red", "blue", "green") * 4]
        path = write_shard(folder / "in/00000.tar", colours)
        run = start_run(config, NAMES)
        units = [unit for shard in plan_shards(run, [path]) for unit in cut_units(shard, config)]
        worker = BootstrapWorker(partial(build_fakes, delay=0.01), config, run)
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(worker.run, units))
        return {name.removeprefix(str(folder)): content for name, content in tables(folder).items()}

    assert ledger("alone", 1) == ledger("together", 3) != {}
