"""Run units on Ray actors, and decide what becomes of a unit when something goes wrong.

Ray's own retries are off, because they repeat a unit that kills its actor for ever; here a unit is tried a limited
number of times. Any attempt may be repeated, even one that had finished when its actor died: units write the same
bytes each time, and write them atomically.

    what goes wrong                     what becomes of it
    a unit's data (ShardError, ...)     the unit has failed, since it would fail in the same way again
    a disk or store (OSError)           tried again after a while; not counted as the unit's failure
    a unit raises anything else         tried again, on another actor where there is one
    an actor dies or passes a deadline  replaced; its units are suspects, tried again one at a time
    a suspect fails again and again     narrowed down to the samples at fault, where the job knows how (isolation.py)
    a node is lost                      its actors are replaced, and no unit is to blame
    a worker cannot be built            the job stops with that error
    that error is an OSError            if a worker was ever built, tried again after a while; then the job stops
    first attempts keep failing         the job stops: the fault is not in the data
"""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from typing import Generic, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from capfilt.config import Cluster
from capfilt.errors import FailedUnitsError, WorkerError
from capfilt.records import Unit
from capfilt.runs.stop import Stop
from workers.attempts import MAX_OUTAGES, Attempts, backoff
from workers.events import NOBODY, Listener
from workers.faults import Fault, Kind, death, fault_of, overdue
from workers.isolation import Case, Isolation
from workers.session import asked_and_free, session
from workers.slots import Slot, Worker, last_words, lost_node, start_actor, unbuilt, units_in_hand

MAX_BUILDS = 3  # actors in a row that died while they built their worker
PATIENCE = 60.0  # seconds without a worker after which a warning says so
START = 5.0  # seconds that the process of an actor takes to start
TURN = 2.0  # seconds that a turn of the driver's loop may take; in any time beyond that, the driver was held up
SHOW_EVERY = 1.0  # seconds between two states shown to the listener, which cost more the more units are in hand

logger = logging.getLogger(__name__)
R = TypeVar("R")


def run_units(
    make: Callable[[], Worker[R]],
    units: Iterable[Unit],
    cluster: Cluster,
    isolation: Isolation | None = None,
    stop: Stop | None = None,
    listener: Listener = NOBODY,
) -> Generator[R, None, None]:
    """Yield the result of each unit as it finishes; of one that was narrowed down, those of its pieces.

    Close the iterator to stop early: its actors are ended, and a private cluster with them.

    Args:
        make: builds the worker inside its actor. It is pickled, so its modules must be installed on every node.
        units: in the order in which they are started.
        cluster: where units run, and how often each is tried. An existing connection is used as it is, and kept.
        isolation: how a unit that keeps failing is narrowed down; without it, it fails whole.
        stop: once it is asked for, units in hand finish and no other begins, which is no error.
        listener: hears what goes wrong, and sees the state about once a second.

    Raises:
        CapfiltError: the one that make raised, at the start.
        WorkerError: make failed otherwise (see unbuilt), or nothing but failures came back.
        FailedUnitsError: at the end, naming the units that never succeeded.
    """
    strikes = max(10, 4 * cluster.workers)
    attempts = Attempts(units, cluster.attempts, strikes, cluster.deadline_seconds, isolation, listener=listener)
    with session(cluster):
        pool = _ActorPool(make, attempts, cluster, stop or Stop(), listener)
        try:
            yield from pool.results()
        finally:
            pool.kill_all()
    if attempts.failed:
        raise FailedUnitsError(attempts.failed)


class _ActorPool(Generic[R]):
    """The actors and the driver's loop over them."""

    def __init__(
        self, make: Callable[[], Worker[R]], attempts: Attempts, cluster: Cluster, stop: Stop, listener: Listener
    ) -> None:
        self.make, self.attempts, self.cluster = make, attempts, cluster
        self.stop, self.listener = stop, listener
        self.built = False  # whether a worker ever was
        self.failed_builds = 0  # actors that died while being built since the last that did not
        self.looked = time.monotonic()  # when overdue units were last looked for
        self.patience = self.looked + PATIENCE
        self.shown, self.ready = 0.0, -1  # when the listener last saw the workers, and how many of them were ready
        self.slots = [start_actor(self.make, self.cluster) for _ in range(attempts.waiting(cluster.workers))]

    def results(self) -> Iterator[R]:
        """Yield results until no unit waits and none is in hand."""
        while self.attempts or any(slot.calls for slot in self.slots):
            if self.stop.asked:
                self.attempts.drain()
            self._hand_out()
            self._show()
            for slot, call in self._finished():
                yield from self._settle(slot, call)
            self._end_overdue()
            self._say_when_starved()

    def kill_all(self) -> None:
        """End all actors. One that is killed while its process starts is lost to Ray, and would keep its CPUs."""
        starting = [slot.actor.__ray_ready__.remote() for slot in self.slots if slot.building is not None]
        if starting:
            ray.wait(starting, num_returns=len(starting), timeout=START)  # those that wait for room never start
        for slot in self.slots:
            ray.kill(slot.actor)

    def _hand_out(self) -> None:
        built, most = [slot for slot in self.slots if slot.building is None], units_in_hand(self.cluster)
        for slot in built:
            while len(slot.calls) < most and not any(case.suspect for case in slot.calls.values()):
                case = self.attempts.take(slot, idle=not slot.calls, alternative=len(built) > 1)
                if case is None:
                    break
                case.deadline = time.monotonic() + case.seconds
                slot.calls[slot.actor.run.remote(case.unit)] = case

    def _finished(self) -> list[tuple[Slot, ray.ObjectRef]]:
        owners = {call: slot for slot in self.slots for call in slot.calls}
        owners |= {slot.building: slot for slot in self.slots if slot.building is not None}
        if not owners:
            time.sleep(0.1)  # all units that are left wait for their back-off to pass
            return []
        done, _ = ray.wait(list(owners), num_returns=1, timeout=1.0, fetch_local=False)
        return [(owners[call], call) for call in done]

    def _settle(self, slot: Slot, call: ray.ObjectRef) -> Iterator[R]:
        """Take a finished call off its slot: yield its result, or decide what becomes of its unit."""
        try:
            value = ray.get(call)
        except RayTaskError as error:
            self._on_exception(slot, call, error.cause)
        except RayError as error:  # the actor is gone or out of reach: it died, ran out of memory or lost its node
            yield from self._take_done(slot)
            self._on_death(slot, error)
        else:
            if call == slot.building:  # by its id: Ray's client returns copies
                slot.building, (slot.node, slot.place), self.failed_builds, self.built = None, value, 0, True
                return
            yield from self._succeed(slot, call, value)

    def _succeed(self, slot: Slot, call: ray.ObjectRef, value: R) -> Iterator[R]:
        case = slot.calls.pop(call)
        self.attempts.succeed(case)
        if not case.unit.trial:
            yield value

    def _take_done(self, slot: Slot) -> Iterator[R]:
        """Yield the results that were ready before their actor died: ray.wait may report its death before them."""
        calls = list(slot.calls)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False) if calls else ([], [])
        for call in ready:
            try:
                value = ray.get(call)
            except RayError:  # this unit was in hand when the actor died
                continue
            yield from self._succeed(slot, call, value)

    def _on_exception(self, slot: Slot, call: ray.ObjectRef, cause: Exception) -> None:
        fault = fault_of(cause)
        if call == slot.building:
            self._on_failed_build(slot, fault, cause)
            return
        if "CUDA error" in fault.reason:  # every later call of that process would meet it too
            self._replace(slot, fault, blamed=[slot.calls[call]])
            return
        self.attempts.fail(slot.calls.pop(call), fault, slot)

    def _on_failed_build(self, slot: Slot, fault: Fault, cause: Exception) -> None:
        """Start another after a while if a disk or store failed and a worker was ever built; else stop the job."""
        outages = slot.outages + 1
        if fault.kind is not Kind.STORE or not self.built or outages >= MAX_OUTAGES:
            raise unbuilt(cause)
        wait, words = backoff(outages), "no worker can be built, outage %d of %d, again in %g s: %s"
        logger.warning(words, outages, MAX_OUTAGES, wait, fault.reason)
        ray.kill(slot.actor)
        self.slots[self.slots.index(slot)] = start_actor(self.make, self.cluster, outages, wait)

    def _on_death(self, slot: Slot, error: RayError) -> None:
        fault = death(last_words(error))
        if lost_node(error, slot.node):
            fault = death(last_words(error), "node was lost")
            for case in slot.calls.values():
                self.attempts.lose(case, fault, slot)
            slot.calls.clear()
        elif slot.building is not None:
            self.failed_builds += 1
            if self.failed_builds >= MAX_BUILDS:
                raise WorkerError(f"no worker can be built, {self.failed_builds} died while trying: {fault.reason}")
        self._replace(slot, fault, blamed=list(slot.calls.values()))

    def _end_overdue(self) -> None:
        """End the actors of units that are past their deadlines. A unit that is done, but not settled yet, is not late.

        Time in which the driver was held up, by whoever takes the results or because it was suspended, does not count:
        the workers may have been suspended, too, and what they finished meanwhile may still be on its way.
        """
        now = time.monotonic()
        held_up, self.looked = max(0.0, now - self.looked - TURN), now
        cases = {call: case for slot in self.slots for call, case in slot.calls.items()}
        for case in cases.values():
            case.deadline += held_up
        if all(case.deadline >= now for case in cases.values()):
            return
        done = set(ray.wait(list(cases), num_returns=len(cases), timeout=0, fetch_local=False)[0])
        for slot in list(self.slots):
            undone = [case for call, case in slot.calls.items() if call not in done]
            late = [case for case in undone if case.deadline < now]
            if late:  # any unit of the actor may be the one that keeps the others from the models
                self._replace(slot, overdue(late[0].seconds), blamed=undone)

    def _replace(self, slot: Slot, fault: Fault, blamed: list[Case]) -> None:
        """End an actor and start another; the units that it had in hand fail if blamed, else they are put back."""
        ray.kill(slot.actor)  # it may only be out of reach, and must not go on
        self.slots[self.slots.index(slot)] = start_actor(self.make, self.cluster)
        for case in slot.calls.values():
            if case in blamed:
                self.attempts.fail(case, fault, slot)
            else:
                self.attempts.give_back(case)

    def _show(self) -> None:
        """Show the listener the state, now and then and whenever a worker comes or goes."""
        now, ready = time.monotonic(), sum(slot.building is None for slot in self.slots)
        if ready == self.ready and now < self.shown + SHOW_EVERY:
            return
        self.shown, self.ready = now, ready
        in_hand = tuple((case, slot) for slot in self.slots for case in slot.calls.values())
        self.listener.see(replace(self.attempts.state(), in_hand=in_hand, ready=ready, wanted=len(self.slots)))

    def _say_when_starved(self) -> None:
        now = time.monotonic()
        if any(slot.building is None for slot in self.slots):
            self.patience = now + PATIENCE
        elif now > self.patience:
            self.patience = now + PATIENCE
            logger.warning("no worker is ready yet; %s", asked_and_free(self.cluster))
