"""Metrics as Prometheus gets them: from the HTTP endpoint of a real Ray, after real units."""

import re
import time
import urllib.request
from functools import partial

import pytest
import ray
from fakes import NAMES, build_dying, job_config, write_shard

from capfilt.display import counted
from capfilt.records import Shard, Unit, UnitResult
from pipelines import bootstrap
from workers import metrics
from workers.events import Event, State
from workers.metrics import METRICS, Metered, Metrics

pytestmark = pytest.mark.usefixtures("ray_cluster")

UNIT = Unit(Shard("0", "0.tar", 0, "", 8), 0, 8)
Series = dict[tuple[str, ...], float]


def scrape(run: str) -> dict[str, Series]:
    """Return all series of a run, by metric and values of the labels that are ours."""
    with urllib.request.urlopen(metrics.endpoint()) as page:
        lines = page.read().decode().splitlines()
    found: dict[str, Series] = {}
    for line in lines:
        if (match := re.fullmatch(r"ray_(capfilt_\w+)\{(.*)\} (\S+)", line)) is None:
            continue
        labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
        if labels.get("run") == run:
            key = tuple(labels[name] for name in METRICS[match[1]].labels)
            found.setdefault(match[1], {})[key] = float(match[3])
    return found


def wait_for(run: str, name: str, key: tuple[str, ...], value: float) -> dict[str, Series]:
    deadline = time.monotonic() + 60
    while (found := scrape(run)).get(name, {}).get(key) != value:
        assert time.monotonic() < deadline, f"{name}{key} is never {value}: {found}"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory, ray_cluster) -> tuple[dict[str, Series], str]:
    """A job over 67 samples in which a white image kills its worker once: what was exported, and its summary."""
    folder = tmp_path_factory.mktemp("metrics")
    write_shard(folder / "in/00000.tar", [("white", "")] * 4)
    for shard in range(1, 4):
        texts = [("red", "my red car"), (b"no image", ""), ("green", "click here")] * 7
        write_shard(folder / f"in/{shard:05d}.tar", texts)
    build = partial(build_dying, marker=str(folder / "deaths"), times=1)
    config = job_config(folder, cluster={"workers": 1, "cpus_per_worker": 0.5, "attempts": 2})
    summary = bootstrap.run(config, build, NAMES)
    run = str(folder / "run")
    return wait_for(run, "capfilt_samples_total", ("ok",), 46), summary


def test_what_was_committed_is_counted_exactly(exported):
    found, _ = exported

    assert found["capfilt_samples_total"] == {("ok",): 46, ("not_an_image",): 21}
    assert found["capfilt_candidates_total"] == {("web",): 42, ("synthetic",): 46}
    assert found["capfilt_candidates_kept_total"] == {("web",): 21, ("synthetic",): 46}
    assert found["capfilt_tokens_total"] == {(): 46 * 4}


def test_failures_are_counted_by_their_cause(exported):
    found, summary = exported

    deaths = found["capfilt_failed_attempts_total"]["death",]
    assert deaths in (1, 2)  # the unit with the image, and the other one if it was still in hand
    assert f"{counted(int(deaths), 'attempt')} at units failed ({deaths:.0f} death)" in summary


def test_seconds_are_told_by_stage_and_those_of_the_models_fit_into_those_of_the_workers(exported):
    found, _ = exported

    stages = found["capfilt_stage_seconds_total"]
    assert set(stages) == {("read",), ("caption",), ("score",), ("write",)}
    assert 0 < stages["caption",] + stages["score",] < found["capfilt_worker_seconds_total"][()]


def test_how_things_are_is_told_exactly_and_goes_on_being_told(ray_cluster):
    """Ray drops a gauge that is not set again: what was set once at the start must be there later, too."""
    told = Metrics("/runs/gauges", planned=100, done=60)
    told.add(UnitResult(UNIT, {"ok": 8}, {}, {}, 0))
    told.hear(Event("given_up", UNIT, "data", "cut short", 1))
    state = State(waiting=3, outage=1, suspect=2, in_hand=((UNIT, ""),) * 4, ready=2, wanted=5)

    end, found = time.monotonic() + 4, {}  # more than two intervals
    while time.monotonic() < end or ("done",) not in found.get("capfilt_run_samples", {}):
        assert time.monotonic() < end + 60, f"nothing is told: {found}"
        told.see(state, 0.5)
        time.sleep(0.2)
        found = scrape("/runs/gauges")

    assert found["capfilt_units"] == {
        ("waiting",): 3,
        ("outage",): 1,
        ("suspect",): 2,
        ("in_hand",): 4,
        ("done",): 1,
        ("given_up",): 1,
    }
    assert (found["capfilt_workers_ready"], found["capfilt_workers_wanted"]) == ({(): 2}, {(): 5})
    assert found["capfilt_run_samples"] == {("planned",): 100, ("done",): 68}
    assert abs(found["capfilt_last_commit_timestamp_seconds"][()] - time.time()) < 60


class OnGPU:
    """A worker in whose process PyTorch says that it uses a GPU, which this machine may not have."""

    def __init__(self) -> None:
        import torch

        torch.cuda.is_initialized = lambda: True
        torch.cuda.memory_allocated = lambda: 100
        torch.cuda.memory_reserved = lambda: 300
        torch.cuda.max_memory_allocated = lambda: 200

    def run(self, unit: Unit) -> str:
        return unit.shard.id


class OnShyGPU(OnGPU):
    """The same, but the first look at the memory fails."""

    def __init__(self) -> None:
        super().__init__()
        import torch

        def refuse() -> int:
            torch.cuda.memory_allocated = lambda: 100
            raise RuntimeError("CUDA driver is busy")

        torch.cuda.memory_allocated = refuse


class Holder:
    """An actor that holds a worker, as the pool's do."""

    def run(self, run: str, make: type[OnGPU]) -> str:
        metrics.MEMORY_EVERY = 0.2
        self.worker = Metered(make, run)
        return self.worker.run(UNIT)


@pytest.mark.parametrize("make", [OnGPU, OnShyGPU])
def test_an_actor_tells_the_memory_of_its_gpu_also_after_a_look_that_failed(make):
    actor, run = ray.remote(Holder).options(num_cpus=0.1).remote(), f"/runs/{make.__name__}"
    assert ray.get(actor.run.remote(run, make)) == UNIT.shard.id

    found = wait_for(run, "capfilt_device_memory_bytes", ("peak", ""), 200)

    assert found["capfilt_device_memory_bytes"] == {("allocated", ""): 100, ("reserved", ""): 300, ("peak", ""): 200}
    ray.kill(actor)


def test_a_process_without_a_gpu_tells_of_none():
    assert metrics._device_memory() == {}


def test_names_are_as_prometheus_wants_them_and_no_label_grows_with_the_run():
    for name, metric in METRICS.items():
        assert re.fullmatch(r"capfilt_[a-z_]+", name)
        assert (metric.kind == "counter") == name.endswith("_total")
        assert set(metric.labels) <= {"status", "source", "stage", "cause", "state", "extent", "kind", "gpu"}
