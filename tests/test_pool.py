"""The pool on a real Ray cluster: whatever happens to an actor, every unit is accounted for."""

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError

from capfilt import storage
from capfilt.config import Cluster
from capfilt.errors import PASSING, CheckpointError, FailedUnitsError, ShardError, WorkerError
from capfilt.records import Shard, Unit
from capfilt.runs.stop import Stop
from workers import attempts, pool
from workers.events import Event, State
from workers.pool import run_units
from workers.slots import lost_node

pytestmark = pytest.mark.usefixtures("ray_cluster")

UNITS = [Unit(Shard(str(n), f"{n}.tar", 0, "", 8), 0, 8) for n in range(6)]


class Echo:
    """Returns the id of the unit's shard."""

    def run(self, unit: Unit) -> str:
        return unit.shard.id


class Marked(Echo):
    """Does something unusual in the units of some shards, and notes each time that it began one."""

    def __init__(self, notes: Path, shards: str) -> None:
        self.notes, self.shards = notes, shards

    def run(self, unit: Unit) -> str:
        with (self.notes / unit.shard.id).open("a") as file:
            file.write(f"{os.getpid()}\n")
        if unit.shard.id in self.shards:
            self.act(unit)
        return super().run(unit)

    def act(self, unit: Unit) -> None:
        raise NotImplementedError

    def first_time(self, unit: Unit) -> bool:
        return len((self.notes / unit.shard.id).read_text().splitlines()) == 1


class Raises(Marked):
    def act(self, unit: Unit) -> None:
        raise RuntimeError(f"{unit.shard.url} makes no sense")


class Damaged(Marked):
    def act(self, unit: Unit) -> None:
        raise ShardError(f"{unit.shard.url}: cut short at 3 bytes")


class RaisesOnce(Marked):
    def act(self, unit: Unit) -> None:
        if self.first_time(unit):
            raise RuntimeError("a passing cloud")


class WaitsForCompany(Marked):
    """Goes on when the other actor is at work too."""

    def act(self, unit: Unit) -> None:
        while len({pid for file in self.notes.iterdir() for pid in file.read_text().split()}) < 2:
            time.sleep(0.01)


class RaisesInCompany(WaitsForCompany):
    def act(self, unit: Unit) -> None:
        super().act(unit)
        if self.first_time(unit):
            raise RuntimeError("two are a crowd")


class DiskFullOnce(Marked):
    def act(self, unit: Unit) -> None:
        if self.first_time(unit):
            raise OSError(28, "No space left on device", "part.parquet")


class Dies(Marked):
    def act(self, unit: Unit) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class DiesOnce(Marked):
    def act(self, unit: Unit) -> None:
        if self.first_time(unit):
            os._exit(1)


class HangsOnce(Marked):
    def act(self, unit: Unit) -> None:
        if self.first_time(unit):
            time.sleep(3600)


class HangsOnceWithTheModel(Marked):
    """Its units take turns; the first one that hangs lets no other have the model."""

    def __init__(self, notes: Path, shards: str) -> None:
        super().__init__(notes, shards)
        self.turn = threading.Lock()

    def run(self, unit: Unit) -> str:
        time.sleep(0.5 if unit.shard.id == "2" else 0.0)  # it begins before unit 3, and then waits for it
        with self.turn:
            return super().run(unit)

    def act(self, unit: Unit) -> None:
        if self.first_time(unit):
            time.sleep(3600)


class MeetsAnOutageWhenBuilt(DiesOnce):
    """Cannot be built some times, since the disk with its models is away; all of this is noted."""

    def __init__(self, notes: Path, shards: str, away: range) -> None:
        """Take which of the job's builds meet the outage; the first is 0."""
        super().__init__(notes, shards)
        build = len(list(notes.glob("build*")))
        (notes / f"build{build}").touch()
        if build in away:
            raise OSError(errno.ESTALE, "Stale file handle", "med.pt")


class TakesItsModelsAlong(Echo):
    """Dies, and with it the file of its models."""

    def __init__(self, notes: Path) -> None:
        self.models = notes / "models"
        self.models.read_bytes()

    def run(self, unit: Unit) -> str:
        self.models.unlink(missing_ok=True)
        os._exit(1)


def no_checkpoint() -> Echo:
    raise CheckpointError("no checkpoint at med.pt")


def asks_without_keys(url: str) -> Echo:
    """Look for the models on a store of which this process, unlike the driver's, knows no keys."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {"HOME": "/proc", "AWS_EC2_METADATA_DISABLED": "true"}
    storage.exists(url)
    return Echo()


def broken_code() -> Echo:
    raise KeyError("encoder")


def dies_while_built() -> Echo:
    os._exit(1)


def pids(notes: Path, shard: str) -> list[str]:
    return (notes / shard).read_text().splitlines()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(workers=2, cpus_per_worker=0.5, attempts=3)


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_every_unit_is_done_once(workers, cluster, tmp_path):
    many = cluster.model_copy(update={"workers": workers, "cpus_per_worker": 0.2})

    assert sorted(run_units(partial(Raises, tmp_path, ""), UNITS, many)) == list("012345")
    assert all(len(pids(tmp_path, shard)) == 1 for shard in "012345")


def test_calls_are_known_by_their_ids_since_rays_client_returns_copies_of_them(cluster, monkeypatch):
    wait = ray.wait

    def copied(calls, **options):
        return tuple([ray.ObjectRef(call.binary()) for call in part] for part in wait(calls, **options))

    monkeypatch.setattr(ray, "wait", copied)

    assert sorted(run_units(Echo, UNITS, cluster)) == list("012345")


def test_workers_that_find_no_room_hold_up_nothing(cluster, tmp_path):
    more = cluster.model_copy(update={"workers": 6, "cpus_per_worker": 1.0})

    assert sorted(run_units(partial(Raises, tmp_path, ""), UNITS, more)) == list("012345")


def test_workers_wait_for_a_node_with_their_labels(cluster, monkeypatch, caplog):
    monkeypatch.setattr(pool, "PATIENCE", 0.0)
    monkeypatch.setattr(pool, "START", 0.0)  # no process of theirs can have begun to start
    stop = Stop()
    caplog.handler.addFilter(lambda record: stop.ask() or True)
    nowhere = cluster.model_copy(update={"labels": {"ray.io/accelerator-type": "A100"}})

    assert list(run_units(Echo, UNITS, nowhere, stop=stop)) == []
    asked = "2 workers, each with 0.5 CPUs and 0 GPUs on nodes with ray.io/accelerator-type: A100"
    assert f"no worker is ready yet; cluster: {asked}; free: " in caplog.text


class Looks:
    """A listener that counts its looks by the workers it sees ready."""

    def __init__(self) -> None:
        self.ready: list[int] = []

    def hear(self, event: Event) -> None:
        raise AssertionError(event)

    def see(self, state: State) -> None:
        self.ready.append(state.ready)


def test_a_listener_sees_workers_come_and_does_not_look_at_every_unit(cluster, tmp_path):
    listener, many = Looks(), UNITS * 50
    assert len(list(run_units(partial(WaitsForCompany, tmp_path, "0"), many, cluster, listener=listener))) == 300
    assert {0, 2} <= set(listener.ready)
    assert len(listener.ready) < 100


def test_no_units_need_no_worker(cluster):
    assert list(run_units(no_checkpoint, [], cluster)) == []


def test_a_poison_unit_fails_alone(cluster, tmp_path):
    done = []

    with pytest.raises(FailedUnitsError) as failure:
        done.extend(run_units(partial(Raises, tmp_path, "2"), UNITS, cluster))

    assert sorted(done) == list("01345")  # extend keeps what came before the error
    assert failure.value.failed == [
        "2.tar, samples 0 to 8: tried 3 times: RuntimeError: 2.tar makes no sense",
    ]
    assert failure.value.exit_code == 3


def test_damaged_data_is_not_tried_again(cluster, tmp_path):
    with pytest.raises(FailedUnitsError, match=r"2\.tar, samples 0 to 8: tried once: ShardError: 2\.tar: cut short"):
        list(run_units(partial(Damaged, tmp_path, "2"), UNITS, cluster))

    assert len(pids(tmp_path, "2")) == 1


def test_a_unit_that_raises_is_tried_again_on_another_actor(cluster, tmp_path):
    assert sorted(run_units(partial(RaisesInCompany, tmp_path, "01"), UNITS, cluster)) == list("012345")

    assert len(set(pids(tmp_path, "0"))) == len(set(pids(tmp_path, "1"))) == 2


def test_a_full_disk_is_tried_again(cluster, tmp_path):
    assert sorted(run_units(partial(DiskFullOnce, tmp_path, "5"), UNITS, cluster)) == list("012345")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_actor_is_replaced(workers, cluster, tmp_path):
    fewer = cluster.model_copy(update={"workers": workers})

    assert sorted(run_units(partial(DiesOnce, tmp_path, "05"), UNITS, fewer)) == list("012345")


def test_a_unit_that_always_kills_its_actor_takes_no_other_along(cluster, tmp_path):
    done = []

    with pytest.raises(FailedUnitsError) as failure:
        done.extend(run_units(partial(Dies, tmp_path, "2"), UNITS, cluster))

    assert failure.value.failed == [
        "2.tar, samples 0 to 8: tried 3 times: its worker died: Worker unexpectedly exits with a connection error "
        "code 2. End of file. It crashed, or was killed, as the kernel does where memory is short."
    ]
    assert sorted(done) == list("01345")
    assert len(pids(tmp_path, "2")) == 3


class DiesWhenToldTo(Marked):
    def act(self, unit: Unit) -> None:
        while not (self.notes / "now").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_unit_that_was_done_before_its_actor_died_is_not_blamed_for_that(cluster, tmp_path, monkeypatch):
    real = pool._ActorPool._finished

    def dead_first(actors: Any) -> list[Any]:
        """Wait for both units in hand, and tell of the second one, which dies when the first is done."""
        calls = [(slot, call) for slot in actors.slots for call in slot.calls]
        if len(calls) < 2:
            return real(actors)
        ray.wait([call for _, call in calls])
        (tmp_path / "now").touch()
        ray.wait([call for _, call in calls], num_returns=len(calls))
        return calls[-1:]

    monkeypatch.setattr(pool._ActorPool, "_finished", dead_first)
    single, done = cluster.model_copy(update={"workers": 1, "attempts": 1}), []

    with pytest.raises(FailedUnitsError, match=r"^1 failed(.|\n)*1\.tar, samples 0 to 8: tried once: its worker died"):
        done.extend(run_units(partial(DiesWhenToldTo, tmp_path, "1"), UNITS, single))

    assert sorted(done) == list("02345")


class LosesItsDevice(Marked):
    """One unit spoils the GPU when the next one is in hand, too, which then waits for it and does not come back."""

    def act(self, unit: Unit) -> None:
        if unit.shard.id == "3":
            while not (self.notes / "4").exists():
                time.sleep(0.01)
            raise RuntimeError("CUDA error: device-side assert triggered")
        if self.first_time(unit):
            time.sleep(3600)


def test_a_unit_that_spoils_the_gpu_has_its_actor_replaced_and_takes_no_other_along(cluster, tmp_path):
    done, single = [], cluster.model_copy(update={"workers": 1, "attempts": 1, "deadline_seconds": 60.0})

    with pytest.raises(FailedUnitsError) as failure:
        done.extend(run_units(partial(LosesItsDevice, tmp_path, "34"), UNITS, single))

    assert failure.value.failed == [
        "3.tar, samples 0 to 8: tried once: RuntimeError: CUDA error: device-side assert triggered"
    ]
    assert sorted(done) == list("01245")
    assert len(set(pids(tmp_path, "4"))) == 2


def test_a_unit_past_its_deadline_is_ended_and_tried_again(cluster, tmp_path):
    hasty = cluster.model_copy(update={"deadline_seconds": 2.0})

    assert sorted(run_units(partial(HangsOnce, tmp_path, "3"), UNITS, hasty)) == list("012345")
    assert len(pids(tmp_path, "3")) == 2


def test_a_unit_that_keeps_the_model_is_ended_though_another_began_before_it(cluster, tmp_path):
    """Either of two units in flight may be the one that hangs; both are tried again alone, and lose nothing by it."""
    hasty = cluster.model_copy(update={"deadline_seconds": 2.0, "workers": 1})

    assert sorted(run_units(partial(HangsOnceWithTheModel, tmp_path, "3"), UNITS, hasty)) == list("012345")
    assert len(pids(tmp_path, "3")) == 2


def slowly(results: Iterator[str], act: Callable[[], None]) -> list[str]:
    """Take results in, and act between the first one and the others."""
    first = next(results)
    act()
    return sorted([first, *results])


def test_time_in_which_nobody_takes_the_results_makes_no_unit_late_that_is_done(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "TURN", 3600.0)  # all of the time counts
    hasty = cluster.model_copy(update={"deadline_seconds": 2.0, "workers": 1, "attempts": 1})
    results = run_units(partial(Raises, tmp_path, ""), UNITS, hasty)

    assert slowly(results, partial(time.sleep, 4.0)) == list("012345")
    assert all(len(pids(tmp_path, shard)) == 1 for shard in "012345")


class TakesASecond(Marked):
    def act(self, unit: Unit) -> None:
        for _ in range(20):  # else a suspension of its process would count as sleep
            time.sleep(0.05)


def test_time_in_which_driver_and_workers_are_suspended_makes_no_unit_late(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "TURN", 0.0)  # nor does that in which a busy machine lets neither go on
    hasty = cluster.model_copy(update={"deadline_seconds": 4.5, "workers": 1, "attempts": 1})

    def suspend() -> None:
        pid = int(pids(tmp_path, "0")[0])
        os.kill(pid, signal.SIGSTOP)
        time.sleep(5.0)
        os.kill(pid, signal.SIGCONT)

    assert slowly(run_units(partial(TakesASecond, tmp_path, "12345"), UNITS, hasty), suspend) == list("012345")
    assert all(len(pids(tmp_path, shard)) == 1 for shard in "012345")


def test_a_worker_that_cannot_be_built_stops_the_job_with_its_own_error(cluster):
    with pytest.raises(CheckpointError, match=r"^no checkpoint at med\.pt$"):
        list(run_units(no_checkpoint, UNITS, cluster))


def test_a_worker_with_broken_code_stops_the_job(cluster):
    with pytest.raises(WorkerError, match="no worker can be built: KeyError: 'encoder'"):
        list(run_units(broken_code, UNITS, cluster))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("gs://bucket/models", "install gcsfs to access Google Storage; install it with pip, on every node"),
        ("s3://bucket/models", "Unable to locate credentials; set them .* on every node"),
    ],
    ids=["package", "keys"],
)
def test_what_only_the_nodes_lack_for_a_store_is_an_error_to_mend_and_no_outage(cluster, url, told):
    if url.startswith("gs") and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(WorkerError, match=f"no worker can be built: .*{told}") as failure:
        list(run_units(partial(asks_without_keys, url), UNITS, cluster))

    assert failure.value.exit_code == 1


def test_workers_that_die_while_they_are_built_stop_the_job(cluster):
    with pytest.raises(WorkerError, match="no worker can be built, 3 died while trying"):
        list(run_units(dies_while_built, UNITS, cluster))


class DiesInEverySecondBuild(DiesOnce):
    def __init__(self, notes: Path, shards: str) -> None:
        super().__init__(notes, shards)
        build = len(list(notes.glob("build*")))
        (notes / f"build{build}").touch()
        if build % 2:
            os._exit(1)


def test_workers_that_die_while_they_are_built_now_and_then_stop_no_job(single, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "MAX_BUILDS", 2)
    make = partial(DiesInEverySecondBuild, tmp_path, "05")  # never in hand together

    assert sorted(run_units(make, UNITS, single)) == list("012345")
    assert len(list(tmp_path.glob("build*"))) >= 1 + 2 * pool.MAX_BUILDS


@pytest.fixture
def single(cluster, monkeypatch) -> Cluster:
    monkeypatch.setattr(attempts, "BACKOFF", 0.01)
    monkeypatch.setattr(pool, "MAX_OUTAGES", 3)
    return cluster.model_copy(update={"workers": 1})


def test_a_worker_that_meets_an_outage_when_it_is_replaced_is_built_when_that_has_passed(single, tmp_path, caplog):
    make = partial(MeetsAnOutageWhenBuilt, tmp_path, "3", range(1, pool.MAX_OUTAGES))

    assert sorted(run_units(make, UNITS, single)) == list("012345")
    assert len(list(tmp_path.glob("build*"))) == 1 + pool.MAX_OUTAGES
    assert "no worker can be built, outage 2 of 3, again in 0.02 s: OSError: [Errno 116] Stale file" in caplog.text


def test_an_outage_that_lets_no_worker_be_replaced_ends_the_job_as_what_may_do_another_time(single, tmp_path):
    make, done = partial(MeetsAnOutageWhenBuilt, tmp_path, "3", range(1, 99)), []

    with pytest.raises(WorkerError, match=r"^no worker can be built: OSError: \[Errno 116\] Stale file") as failure:
        done.extend(run_units(make, UNITS, single))

    assert failure.value.exit_code == PASSING
    assert len(done) >= 2
    assert len(list(tmp_path.glob("build*"))) == 1 + pool.MAX_OUTAGES


def test_a_file_that_is_missing_when_a_worker_is_replaced_does_not_end_the_job_as_what_may_pass(single, tmp_path):
    (tmp_path / "models").touch()

    with pytest.raises(WorkerError, match=r"^no worker can be built: FileNotFoundError: .*models") as failure:
        list(run_units(partial(TakesItsModelsAlong, tmp_path), UNITS, single))

    assert failure.value.exit_code == 1


def test_an_outage_at_the_first_build_of_a_job_stops_it_at_once(single, tmp_path):
    with pytest.raises(WorkerError, match=r"^no worker can be built: OSError: \[Errno 116\] Stale file") as failure:
        list(run_units(partial(MeetsAnOutageWhenBuilt, tmp_path, "", range(1)), UNITS, single))

    assert failure.value.exit_code == PASSING
    assert [path.name for path in tmp_path.iterdir()] == ["build0"]


def test_a_fault_of_every_unit_stops_the_job(cluster, tmp_path):
    units = [Unit(Shard(str(n), f"{n}.tar", 0, "", 8), 0, 8) for n in range(100)]

    with pytest.raises(WorkerError, match="10 units failed in a row"):
        list(run_units(partial(Raises, tmp_path, [unit.shard.id for unit in units]), units, cluster))


def test_a_stop_lets_units_in_hand_finish_and_begins_no_other(cluster, tmp_path):
    stop, done = Stop(), []
    for result in run_units(partial(Raises, tmp_path, ""), UNITS * 100, cluster, stop=stop):
        done.append(result)
        stop.ask()

    begun = sum(len(pids(tmp_path, file.name)) for file in tmp_path.iterdir())
    assert begun == len(done) <= 2 * 2 + 1


def test_a_stop_before_the_first_unit_begins_nothing(cluster, tmp_path):
    stop = Stop()
    stop.ask()

    assert list(run_units(partial(Raises, tmp_path, "0"), UNITS, cluster, stop=stop)) == []
    assert list(tmp_path.iterdir()) == []


def test_closing_the_results_ends_the_actors(cluster, tmp_path):
    results = run_units(partial(Raises, tmp_path, ""), UNITS * 100, cluster)
    next(results)
    results.close()

    deadline = time.monotonic() + 20
    begun = [shard for shard in "01" if (tmp_path / shard).exists()]  # the second actor may be slow to come
    while any(Path(f"/proc/{pid}").exists() for shard in begun for pid in pids(tmp_path, shard)):
        assert time.monotonic() < deadline, "an actor outlives its job"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("message", "lost"),
    [("The actor died because its node has died. Node Id: 7", True), ("The actor's worker process has died.", False)],
)
def test_a_node_that_is_lost_while_a_worker_is_built_is_told_from_a_worker_that_cannot_be(message, lost):
    context = ActorDiedErrorContext(error_message=message, actor_id=bytes(16), never_started=True)

    assert lost_node(ActorDiedError(context), node="") is lost


LOSES_A_NODE = """
import time
import ray
from ray.cluster_utils import Cluster as Nodes
from test_pool import Sleepy
from capfilt.config import Cluster
from capfilt.records import Shard, Unit
from workers.pool import run_units

node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
nodes = Nodes(initialize_head=True, head_node_args=node | {"include_dashboard": False})
second = nodes.add_node(**node)
ray.init(address=nodes.address, log_to_driver=False)
units = [Unit(Shard(str(n), f"{n}.tar", 0, "", 8), 0, 8) for n in range(24)]
done = []
for result in run_units(Sleepy, units, Cluster(workers=2, attempts=1)):
    done.append(result)
    if len(done) == 8:
        nodes.remove_node(second, allow_graceful=False)
    if len(done) == 16:
        nodes.add_node(**node)
ray.shutdown()
nodes.shutdown()
assert sorted(done, key=int) == [str(n) for n in range(24)], done
"""


class Sleepy(Echo):
    def run(self, unit: Unit) -> str:
        time.sleep(0.3)
        return super().run(unit)


@pytest.mark.slow
def test_a_lost_node_costs_no_unit_an_attempt():
    """Nodes need a process of their own; there each unit has one attempt, which the loss must not use up."""
    paths = f"{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}"
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_AUTH_MODE": "disabled"}

    subprocess.run([sys.executable, "-c", LOSES_A_NODE], env=environment, check=True, timeout=120)
