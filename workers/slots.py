"""The actors of a job: each holds a worker, and has some units in hand."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RaySystemError

from capfilt.config import Cluster
from capfilt.errors import PASSING, CapfiltError, WorkerError
from capfilt.logs import LogSettings
from capfilt.records import Unit
from capfilt.retries import may_pass
from workers.faults import fault_of
from workers.isolation import Case

R_co = TypeVar("R_co", covariant=True)


class Worker(Protocol[R_co]):
    """What an actor holds. As many threads may call it at once as there are units in hand."""

    def run(self, unit: Unit) -> R_co:
        """Do a unit; doing it again must change nothing."""
        ...


class _Actor:
    """The process of one worker. The worker is built by a separate call, so that an error arrives as it was raised."""

    def build(self, make: Callable[[], Worker[object]], cpus: float, logs: LogSettings, wait: float) -> tuple[str, str]:
        """Build the worker after some seconds; return its node's id, and its place for people."""
        logs.apply()
        time.sleep(wait)
        os.environ.setdefault("RAYON_NUM_THREADS", str(max(1, int(cpus))))  # the tokenizer's
        self.worker = make()
        return str(ray.get_runtime_context().get_node_id()), f"pid {os.getpid()} on {ray.util.get_node_ip_address()}"

    def run(self, unit: Unit) -> object:
        return self.worker.run(unit)


@dataclass(eq=False)
class Slot:
    """An actor and the calls it has in hand."""

    actor: ActorHandle
    building: ray.ObjectRef | None  # the call that builds the worker; None when it is built
    node: str = ""
    place: str = ""  # for people
    calls: dict[ray.ObjectRef, Case] = field(default_factory=dict)
    outages: int = 0  # of a disk or store, in a row, that kept the actors before it from being built

    def __str__(self) -> str:
        return self.place


def units_in_hand(cluster: Cluster) -> int:
    """Return how many units an actor does at once: one reads or writes while another (on a GPU, two) has a model."""
    return 3 if cluster.gpus_per_worker else 2


def start_actor(make: Callable[[], Worker[object]], cluster: Cluster, outages: int = 0, wait: float = 0.0) -> Slot:
    """Start an actor, which waits some seconds, builds its worker, and logs as this process does."""
    actor_class = ray.remote(_Actor).options(
        num_cpus=cluster.cpus_per_worker,
        num_gpus=cluster.gpus_per_worker,
        label_selector=cluster.labels,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=units_in_hand(cluster),
        enable_task_events=False,  # they cost the head's memory for each call, and nobody reads them
    )
    actor = actor_class.remote()
    building = actor.build.remote(make, cluster.cpus_per_worker, LogSettings.here(), wait)
    return Slot(actor, building, outages=outages)


def unbuilt(cause: Exception, what: str = "built") -> CapfiltError:
    """Return the error of a job whose worker cannot be built; its code is PASSING if a disk or store may recover."""
    if isinstance(cause, CapfiltError):
        return cause
    if isinstance(
        cause, RaySystemError
    ):  # what was sent to the worker cannot be unpickled there; it quotes a traceback
        why = f"{str(cause).strip().splitlines()[-1]}; install on every node what this one has"
    else:
        why = fault_of(cause).reason
    error = WorkerError(f"no worker can be {what}: {why}")
    if isinstance(cause, OSError) and may_pass(cause):
        error.exit_code = PASSING
    return error


def last_words(error: RayError) -> str:
    """Return in a line why a process died, without Ray's general advice, which takes up to 1,500 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0 if isinstance(error, OutOfMemoryError) else -1].strip()  # others name the actor first
    line = line.partition(" This can happen if the node was ")[0]
    reason, killed, _ = line.rpartition("Worker exit detail: ")[2].partition(" Some common causes include:")
    return f"{reason} It crashed, or was killed, as the kernel does where memory is short." if killed else reason


def lost_node(error: RayError, node: str = "") -> bool:
    """Return whether an actor was lost with its node; without the node's id, its message decides."""
    if isinstance(error, ActorUnavailableError) or getattr(error, "preempted", False):
        return True
    if not node:
        return "node has died" in str(error)
    return any(entry["NodeID"] == node and not entry["Alive"] for entry in ray.nodes())
