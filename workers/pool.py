"""Run units on Ray actors, and decide what becomes of a unit when something goes wrong.

This module and train_worker alone import ray. Ray's own retries are off, because they repeat a unit that kills its
actor for ever; here a unit is tried a counted number of times. An attempt may be repeated, also one that
was already finished when its actor died: units write the same bytes each time, and write them atomically.

    what goes wrong                     what becomes of it
    a unit's data (ShardError, ...)     the unit has failed, since it would fail in the same way again
    a unit raises anything else         tried again, on another actor where there is one
    an actor dies or passes a deadline  replaced; its units are suspects, tried again one at a time
    a node is lost                      its actors are replaced, and no unit is to blame
    a worker cannot be built            the job stops with that error
    first attempts only ever fail       the job stops: the fault is not in the data
"""

import logging
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from capfilt.config import Cluster
from capfilt.errors import CapfiltError, ConfigError, FailedUnitsError, ModelError, WorkerError
from capfilt.records import Unit
from workers.address import require_answer
from workers.attempts import Attempts, Case
from workers.signals import exit_on_sigterm

IN_FLIGHT = 2  # units of an actor: one reads or writes while the other has the model
MOST_BUILDS = 3  # actors in a row that died while they built their worker
STORE_BYTES = 100 * 2**20  # of a private cluster's object store, which holds nothing but units and their results
BACKOFF = 1.0  # seconds before a unit is tried again that met a full disk or a store that did not answer
PATIENCE = 60.0  # seconds without a worker until that is said

logger = logging.getLogger(__name__)
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Worker(Protocol[R_co]):
    """What an actor holds. Two threads may call it at once."""

    def run(self, unit: Unit) -> R_co:
        """Do a unit; doing it again must change nothing."""
        ...


def run_units(make: Callable[[], Worker[R]], units: Iterable[Unit], cluster: Cluster) -> Generator[R, None, None]:
    """Yield the result of each unit as it finishes.

    Close the iterator to stop early: its actors are ended, and a private cluster with them.

    Args:
        make: builds the worker inside its actor. It is pickled, so its modules must be installed on every node.
        units: in the order in which they are started.
        cluster: where and how often. A connection that exists is used as it is, and stays.

    Raises:
        CapfiltError: the one that make raised, at the start.
        WorkerError: make failed otherwise, or nothing but failures came back.
        FailedUnitsError: at the end, naming the units that never succeeded.
    """
    attempts = Attempts(units, cluster.attempts, strikes=max(10, 4 * cluster.workers))
    with session(cluster):
        crew = _Crew(make, attempts, cluster)
        try:
            yield from crew.results()
        finally:
            crew.dismiss()
    if attempts.failed:
        raise FailedUnitsError(attempts.failed)


@contextmanager
def session(cluster: Cluster) -> Iterator[None]:
    """Connect to Ray for a while, or start it on this machine with exactly what the workers need.

    A connection that exists is used as it is, and stays; so several calls of run_units can share one.

    Raises:
        ConfigError: there is no cluster at the address, or this machine has too few GPUs.
    """
    if ray.is_initialized():
        yield
        return
    private = {
        "num_cpus": max(1, math.ceil(cluster.workers * cluster.cpus_per_worker)),
        "num_gpus": None if cluster.gpus_per_worker else 0,  # None counts the machine's own
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES,
    }
    local = cluster.address == "local"
    require_answer(cluster.address)
    # A private cluster warns of nothing but how its token is kept, which is of use where others can reach it.
    level = logging.ERROR if local else logging.WARNING
    ray.init(cluster.address, log_to_driver=False, logging_level=level, **private if local else {})
    try:
        if local:
            _check_gpus(cluster)
        with exit_on_sigterm():
            yield
    finally:
        ray.shutdown()


def _check_gpus(cluster: Cluster) -> None:
    wanted, found = cluster.workers * cluster.gpus_per_worker, ray.cluster_resources().get("GPU", 0)
    if wanted > found:
        raise ConfigError(f"cluster: {cluster.workers} workers need {wanted:g} GPUs, this machine has {found:g}")


class _Actor:
    """The process of one worker. It is built by a call of its own, so that the error arrives as it was raised."""

    def build(self, make: Callable[[], Worker[object]]) -> str:
        """Build the worker and return the node it is on."""
        self.worker = make()
        return str(ray.get_runtime_context().get_node_id())

    def run(self, unit: Unit) -> object:
        return self.worker.run(unit)


@dataclass(eq=False)
class _Seat:
    """An actor and the calls it has in hand."""

    actor: Any
    building: Any  # the call that builds the worker; None when it is built
    node: str = ""
    calls: dict[Any, Case] = field(default_factory=dict)


class _Crew(Generic[R]):
    """The actors and the driver's loop over them."""

    def __init__(self, make: Callable[[], Worker[R]], attempts: Attempts, cluster: Cluster) -> None:
        self.make, self.attempts, self.cluster = make, attempts, cluster
        self.stillborn = 0  # actors that died while being built since the last that did not
        self.patience = time.monotonic() + PATIENCE
        self.seats = [self._hire() for _ in range(min(cluster.workers, len(attempts)))]

    def results(self) -> Iterator[R]:
        """Yield results until no unit waits and none is in hand."""
        while self.attempts or any(seat.calls for seat in self.seats):
            self._hand_out()
            for seat, call in self._finished():
                yield from self._settle(seat, call)
            self._end_overdue()
            self._say_when_starved()

    def dismiss(self) -> None:
        """End all actors."""
        for seat in self.seats:
            ray.kill(seat.actor)

    def _hire(self) -> _Seat:
        actor_class = ray.remote(_Actor).options(
            num_cpus=self.cluster.cpus_per_worker,
            num_gpus=self.cluster.gpus_per_worker,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=IN_FLIGHT,
            enable_task_events=False,  # they cost the head memory for each call, and nobody reads them
        )
        actor = actor_class.remote()
        return _Seat(actor, actor.build.remote(self.make))

    def _hand_out(self) -> None:
        built = [seat for seat in self.seats if seat.building is None]
        for seat in built:
            while len(seat.calls) < IN_FLIGHT and not any(case.failures for case in seat.calls.values()):
                case = self.attempts.take(seat, idle=not seat.calls, alternative=len(built) > 1)
                if case is None:
                    break
                case.deadline = time.monotonic() + self.cluster.deadline_seconds
                seat.calls[seat.actor.run.remote(case.unit)] = case

    def _finished(self) -> list[tuple[_Seat, Any]]:
        owners = {call: seat for seat in self.seats for call in seat.calls}
        owners |= {seat.building: seat for seat in self.seats if seat.building is not None}
        if not owners:
            time.sleep(0.1)  # all that is left waits out its back-off
            return []
        done, _ = ray.wait(list(owners), num_returns=1, timeout=1.0, fetch_local=False)
        return [(owners[call], call) for call in done]

    def _settle(self, seat: _Seat, call: Any) -> Iterator[R]:
        """Take a finished call off its seat: yield its result, or decide what becomes of its unit."""
        try:
            value = ray.get(call)
        except RayTaskError as error:
            self._on_exception(seat, call, error.cause)
        except RayError as error:  # the actor is gone or out of reach: it died, ran out of memory, lost its node
            self._on_death(seat, error)
        else:
            if call is seat.building:
                seat.building, seat.node, self.stillborn = None, value, 0
                return
            del seat.calls[call]
            self.attempts.succeed()
            yield value

    def _on_exception(self, seat: _Seat, call: Any, cause: Exception) -> None:
        reason = f"{type(cause).__name__}: {cause}"
        if call is seat.building:
            raise cause if isinstance(cause, CapfiltError) else WorkerError(f"no worker can be built: {reason}")
        if "CUDA error" in reason:  # every later call of that process would meet it too
            self._replace(seat, reason, blamed=[seat.calls[call]])
            return
        case = seat.calls.pop(call)
        delay = BACKOFF if isinstance(cause, OSError) else 0.0
        data = isinstance(cause, CapfiltError) and not isinstance(cause, ModelError)  # another GPU may be sound
        self.attempts.fail(case, reason, seat, delay=delay, data=data)

    def _on_death(self, seat: _Seat, error: RayError) -> None:
        reason = f"its worker died: {str(error).strip().splitlines()[-1].strip()}"
        if isinstance(error, ActorUnavailableError) or getattr(error, "preempted", False) or not _alive(seat.node):
            for case in seat.calls.values():
                self.attempts.lose(case, reason, seat)
            seat.calls.clear()
        elif seat.building is not None:
            self.stillborn += 1
            if self.stillborn >= MOST_BUILDS:
                raise WorkerError(f"no worker can be built, {self.stillborn} died while trying: {reason}")
        self._replace(seat, reason, blamed=list(seat.calls.values()))

    def _end_overdue(self) -> None:
        for seat in list(self.seats):
            overdue = [case for case in seat.calls.values() if case.deadline < time.monotonic()]
            if overdue:
                self._replace(seat, f"not done in deadline_seconds = {self.cluster.deadline_seconds:g}", overdue)

    def _replace(self, seat: _Seat, reason: str, blamed: list[Case]) -> None:
        """End an actor and hire another; the units it had in hand fail if blamed, else they just go back."""
        ray.kill(seat.actor)  # one that is only out of reach must not go on
        self.seats[self.seats.index(seat)] = self._hire()
        for case in seat.calls.values():
            if case in blamed:
                self.attempts.fail(case, reason, seat)
            else:
                self.attempts.give_back(case)

    def _say_when_starved(self) -> None:
        now = time.monotonic()
        if any(seat.building is None for seat in self.seats):
            self.patience = now + PATIENCE
        elif now > self.patience:
            self.patience = now + PATIENCE
            logger.warning("no worker is ready yet; cluster: %s; free: %s", self.cluster, ray.available_resources())


def _alive(node: str) -> bool:
    """Return whether a node is up; that of an actor which never started is not known, and counts as up."""
    return not any(entry["NodeID"] == node and not entry["Alive"] for entry in ray.nodes())
