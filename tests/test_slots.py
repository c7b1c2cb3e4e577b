import os
import re
import threading
import time

import pytest
import ray
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RaySystemError,
)

from capfilt.config import Cluster
from capfilt.errors import PASSING, ConfigError, WorkerError
from capfilt.logs import LogSettings, everywhere
from capfilt.records import Shard, Unit
from workers.slots import last_words, lost_node, start_actor, unbuilt, units_in_hand

UNIT = Unit(Shard("0", "0.tar", 1, "d", 8), 0, 8)


class Looks:
    """A worker that tells what its process was given."""

    def run(self, unit: Unit) -> tuple[str, int, dict[str, str]]:
        return os.environ["RAYON_NUM_THREADS"], os.getpid(), LogSettings.here().fields


class Meets:
    """A worker that goes on with a unit when as many are in hand as may be."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def run(self, unit: Unit) -> int:
        return self.barrier.wait(timeout=60)


def test_a_gpu_has_one_unit_more_in_hand():
    assert (units_in_hand(Cluster()), units_in_hand(Cluster(gpus_per_worker=0.5))) == (2, 3)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("cpus", "threads"), [(2.0, "2"), (0.5, "1")])
def test_an_actor_is_told_by_its_place_and_has_the_threads_and_the_log_of_its_job(cpus, threads):
    with everywhere(run="/runs/a"):
        slot = start_actor(Looks, Cluster(cpus_per_worker=cpus))
    slot.node, slot.place = ray.get(slot.building)

    found, pid, fields = ray.get(slot.actor.run.remote(UNIT))
    ray.kill(slot.actor)

    assert slot.node == ray.nodes()[0]["NodeID"]
    assert re.fullmatch(rf"pid {pid} on [\d.]+", str(slot))
    assert (found, fields) == (threads, {"run": "/runs/a"})


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("asked", [{"gpus_per_worker": 1.0}, {"cpus_per_worker": 3.0}, {"labels": {"pool": "spot"}}])
def test_an_actor_waits_for_a_node_that_has_what_its_job_asks_for(asked):
    """Here none has. That others, which were asked for later, are there shows that it had its chance."""
    small = Cluster(cpus_per_worker=0.1)
    waiting = start_actor(Looks, small.model_copy(update=asked))
    for _ in range(2):
        other = start_actor(Looks, small)
        ray.get(other.building)
        ray.kill(other.actor)

    assert ray.wait([waiting.building], timeout=0)[0] == []
    ray.kill(waiting.actor)


@pytest.mark.usefixtures("ray_cluster")
def test_an_actor_waits_before_it_builds_its_worker():
    slot = start_actor(Looks, Cluster(cpus_per_worker=0.1))
    ray.get(slot.building)  # its process is there
    begun = time.monotonic()
    ray.get(slot.actor.build.remote(Looks, 0.1, LogSettings.here(), 0.5))
    took = time.monotonic() - begun
    ray.kill(slot.actor)

    assert took >= 0.5


@pytest.mark.usefixtures("ray_cluster")
def test_as_many_units_run_at_once_as_are_in_hand():
    slot = start_actor(Meets, Cluster(cpus_per_worker=0.5))
    ray.get(slot.building)
    met = ray.get([slot.actor.run.remote(UNIT) for _ in range(units_in_hand(Cluster()))])
    ray.kill(slot.actor)

    assert sorted(met) == [0, 1]


def died(message: str) -> ActorDiedError:
    return ActorDiedError(ActorDiedErrorContext(error_message=message, actor_id=bytes(16), pid=7, class_name="_Actor"))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (died("The actor is dead because its node has died."), "The actor is dead because its node has died."),
        (
            died(
                "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
                "detail: Worker exits unexpectedly. Worker exits with an exit code 3."
            ),
            "Worker exits unexpectedly. Worker exits with an exit code 3.",
        ),
        (
            died(
                "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
                "detail: Worker unexpectedly exits with a connection error code 2. Some common causes include: (1) the "
                "process was killed by the OOM killer due to high memory usage."
            ),
            "Worker unexpectedly exits with a connection error code 2. It crashed, or was killed, as the kernel does "
            "where memory is short.",
        ),
        (
            OutOfMemoryError(
                "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.5, ID: "
                "ddac) was 3.48GB used / 23.59GB limit (0.147679)\nOOM kill reason: Memory usage 3740012544B exceeded "
                "threshold\nRefer to the documentation on how to address the out of memory issue: https://docs.ray.io"
            ),
            "1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.5, ID: "
            "ddac) was 3.48GB used / 23.59GB limit (0.147679)",
        ),
        (
            NodeDiedError(
                "Task failed because the node it was running on is dead or unavailable. Node IP: 10.0.0.5, node ID: "
                "4f97. This can happen if the node was preempted, had a hardware failure, or its raylet crashed "
                "unexpectedly. To see node death information, use `ray list nodes --filter node_id=4f97`, check the Ray"
            ),
            "Task failed because the node it was running on is dead or unavailable. Node IP: 10.0.0.5, node ID: 4f97.",
        ),
        (RayError(), "RayError"),
    ],
)
def test_why_a_process_died_is_told_in_a_line(error, told):
    assert last_words(error) == told


NODE_DIED, PROCESS_DIED = died("The actor is dead because its node has died."), died("its worker process has died.")
PREEMPTED = RayActorError(error_msg="its worker process has died.", preempted=True)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (NODE_DIED, True),
        (PROCESS_DIED, False),
        (PREEMPTED, True),
        (ActorUnavailableError("the node does not answer", None), True),
    ],
)
def test_an_actor_that_never_started_was_lost_with_its_node_if_its_error_says_so(error, lost):
    assert lost_node(error) is lost


@pytest.mark.usefixtures("ray_cluster")
def test_of_an_actor_whose_node_is_known_that_node_tells_and_not_the_words(monkeypatch):
    node = ray.nodes()[0]["NodeID"]
    assert not lost_node(NODE_DIED, node)
    assert lost_node(PREEMPTED, node)

    dead = [{"NodeID": node, "Alive": False}, {"NodeID": "another", "Alive": True}]
    monkeypatch.setattr(ray, "nodes", lambda: dead)
    assert lost_node(PROCESS_DIED, node)
    assert not lost_node(PROCESS_DIED, "another")


@pytest.mark.parametrize(
    ("cause", "code"),
    [(ConnectionError("a store"), PASSING), (PermissionError(13, "no"), 1), (ValueError("a slip"), 1)],
)
def test_a_worker_that_cannot_be_built_may_be_built_later_where_a_store_may_come_back(cause, code):
    error = unbuilt(cause)

    assert isinstance(error, WorkerError)
    assert error.exit_code == code
    assert str(error) == f"no worker can be built: {type(cause).__name__}: {cause}"


def test_an_error_that_the_user_can_mend_is_told_as_it_is():
    cause = ConfigError("a key")
    assert unbuilt(cause) is cause


def test_a_node_that_lacks_the_code_of_the_job_is_told_in_a_line():
    error = "ModuleNotFoundError: No module named 'capfilt'"

    told = str(unbuilt(RaySystemError("No module named 'capfilt'", f"Traceback:\n  ...\n{error}\n")))

    assert told == f"no worker can be built: {error}; install on every node what this one has"
