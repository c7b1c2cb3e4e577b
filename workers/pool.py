"""Run units on Ray actors, and decide what becomes of a unit when something goes wrong.

Ray's own retries are off, because they repeat a unit that kills its actor for ever; here a unit is tried a counted
number of times. An attempt may be repeated, also one that was already finished when its actor died: units write the
same bytes each time, and write them atomically.

    what goes wrong                     what becomes of it
    a unit's data (ShardError, ...)     the unit has failed, since it would fail in the same way again
    a disk or store (OSError)           tried again after a while; not counted as the unit's failure
    a unit raises anything else         tried again, on another actor where there is one
    an actor dies or passes a deadline  replaced; its units are suspects, tried again one at a time
    a suspect fails again and again     narrowed down to the samples at fault, where the job knows how (isolation.py)
    a node is lost                      its actors are replaced, and no unit is to blame
    a worker cannot be built            the job stops with that error
    an OSError lets none be built       once one was built, tried again after a while; then the job stops
    first attempts only ever fail       the job stops: the fault is not in the data
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
from workers.attempts import MOST_OUTAGES, Attempts, backoff
from workers.events import NOBODY, Listener
from workers.faults import Fault, Kind, death, fault_of, overdue
from workers.isolation import Case, Isolation
from workers.seats import Seat, Worker, hire, last_words, lost_node, unbuilt, units_in_hand
from workers.session import asked_and_free, session

MOST_BUILDS = 3  # actors in a row that died while they built their worker
PATIENCE = 60.0  # seconds without a worker until that is said
START = 5.0  # seconds that the process of an actor takes to start
TURN = 2.0  # seconds that a turn of the driver's loop may take; in what is above that, the driver was held up
SHOWN = 1.0  # seconds between two looks of the listener, to whom it costs the more the more units are in hand

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
        cluster: where and how often. A connection that exists is used as it is, and stays.
        isolation: how a unit that keeps failing is narrowed down; without it, it fails whole.
        stop: once it is asked for, units in hand finish, no other begins, and that is no error.
        listener: hears what goes wrong, and sees how things are about once a second.

    Raises:
        CapfiltError: the one that make raised, at the start.
        WorkerError: make failed otherwise (see unbuilt), or nothing but failures came back.
        FailedUnitsError: at the end, naming the units that never succeeded.
    """
    strikes = max(10, 4 * cluster.workers)
    attempts = Attempts(units, cluster.attempts, strikes, cluster.deadline_seconds, isolation, listener=listener)
    with session(cluster):
        crew = _Crew(make, attempts, cluster, stop or Stop(), listener)
        try:
            yield from crew.results()
        finally:
            crew.dismiss()
    if attempts.failed:
        raise FailedUnitsError(attempts.failed)


class _Crew(Generic[R]):
    """The actors and the driver's loop over them."""

    def __init__(
        self, make: Callable[[], Worker[R]], attempts: Attempts, cluster: Cluster, stop: Stop, listener: Listener
    ) -> None:
        self.make, self.attempts, self.cluster = make, attempts, cluster
        self.stop, self.listener = stop, listener
        self.built = False  # whether a worker ever was
        self.stillborn = 0  # actors that died while being built since the last that did not
        self.looked = time.monotonic()  # for units that are overdue
        self.patience = self.looked + PATIENCE
        self.shown, self.ready = 0.0, -1  # when the listener last saw the workers, and how many of them were ready
        self.seats = [hire(self.make, self.cluster) for _ in range(attempts.waiting(cluster.workers))]

    def results(self) -> Iterator[R]:
        """Yield results until no unit waits and none is in hand."""
        while self.attempts or any(seat.calls for seat in self.seats):
            if self.stop.asked:
                self.attempts.drain()
            self._hand_out()
            self._show()
            for seat, call in self._finished():
                yield from self._settle(seat, call)
            self._end_overdue()
            self._say_when_starved()

    def dismiss(self) -> None:
        """End all actors. Ray loses sight of one that is killed while its process starts: it would keep its CPUs."""
        starting = [seat.actor.__ray_ready__.remote() for seat in self.seats if seat.building is not None]
        if starting:
            ray.wait(starting, num_returns=len(starting), timeout=START)  # those that wait for room never start
        for seat in self.seats:
            ray.kill(seat.actor)

    def _hand_out(self) -> None:
        built, most = [seat for seat in self.seats if seat.building is None], units_in_hand(self.cluster)
        for seat in built:
            while len(seat.calls) < most and not any(case.suspect for case in seat.calls.values()):
                case = self.attempts.take(seat, idle=not seat.calls, alternative=len(built) > 1)
                if case is None:
                    break
                case.deadline = time.monotonic() + case.seconds
                seat.calls[seat.actor.run.remote(case.unit)] = case

    def _finished(self) -> list[tuple[Seat, ray.ObjectRef]]:
        owners = {call: seat for seat in self.seats for call in seat.calls}
        owners |= {seat.building: seat for seat in self.seats if seat.building is not None}
        if not owners:
            time.sleep(0.1)  # all that is left waits out its back-off
            return []
        done, _ = ray.wait(list(owners), num_returns=1, timeout=1.0, fetch_local=False)
        return [(owners[call], call) for call in done]

    def _settle(self, seat: Seat, call: ray.ObjectRef) -> Iterator[R]:
        """Take a finished call off its seat: yield its result, or decide what becomes of its unit."""
        try:
            value = ray.get(call)
        except RayTaskError as error:
            self._on_exception(seat, call, error.cause)
        except RayError as error:  # the actor is gone or out of reach: it died, ran out of memory, lost its node
            yield from self._take_done(seat)
            self._on_death(seat, error)
        else:
            if call is seat.building:
                seat.building, (seat.node, seat.place), self.stillborn, self.built = None, value, 0, True
                return
            yield from self._succeed(seat, call, value)

    def _succeed(self, seat: Seat, call: ray.ObjectRef, value: R) -> Iterator[R]:
        case = seat.calls.pop(call)
        self.attempts.succeed(case)
        if not case.unit.trial:
            yield value

    def _take_done(self, seat: Seat) -> Iterator[R]:
        """Yield the results that came before their actor died: calls that are ready are told in no order."""
        calls = list(seat.calls)
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=0, fetch_local=False) if calls else ([], [])
        for call in ready:
            try:
                value = ray.get(call)
            except RayError:  # this unit was in hand when the actor died
                continue
            yield from self._succeed(seat, call, value)

    def _on_exception(self, seat: Seat, call: ray.ObjectRef, cause: Exception) -> None:
        fault = fault_of(cause)
        if call is seat.building:
            self._on_failed_build(seat, fault, cause)
            return
        if "CUDA error" in fault.reason:  # every later call of that process would meet it too
            self._replace(seat, fault, blamed=[seat.calls[call]])
            return
        self.attempts.fail(seat.calls.pop(call), fault, seat)

    def _on_failed_build(self, seat: Seat, fault: Fault, cause: Exception) -> None:
        """Hire another after a while where a disk or store, which let another be built, may come back; else stop."""
        outages = seat.outages + 1
        if fault.kind is not Kind.STORE or not self.built or outages >= MOST_OUTAGES:
            raise unbuilt(cause)
        wait, words = backoff(outages), "no worker can be built, outage %d of %d, again in %g s: %s"
        logger.warning(words, outages, MOST_OUTAGES, wait, fault.reason)
        ray.kill(seat.actor)
        self.seats[self.seats.index(seat)] = hire(self.make, self.cluster, outages, wait)

    def _on_death(self, seat: Seat, error: RayError) -> None:
        fault = death(last_words(error))
        if lost_node(error, seat.node):
            for case in seat.calls.values():
                self.attempts.lose(case, fault, seat)
            seat.calls.clear()
        elif seat.building is not None:
            self.stillborn += 1
            if self.stillborn >= MOST_BUILDS:
                raise WorkerError(f"no worker can be built, {self.stillborn} died while trying: {fault.reason}")
        self._replace(seat, fault, blamed=list(seat.calls.values()))

    def _end_overdue(self) -> None:
        """End the actors of units that are past their deadlines. One that is done, but not settled yet, is not late.

        Nor does the time count in which the driver was held up, by whoever takes the results or because it was
        suspended: the workers may have been, too, and what they finished meanwhile may still be on its way.
        """
        now = time.monotonic()
        held_up, self.looked = max(0.0, now - self.looked - TURN), now
        cases = {call: case for seat in self.seats for call, case in seat.calls.items()}
        for case in cases.values():
            case.deadline += held_up
        if all(case.deadline >= now for case in cases.values()):
            return
        done = set(ray.wait(list(cases), num_returns=len(cases), timeout=0, fetch_local=False)[0])
        for seat in list(self.seats):
            undone = [case for call, case in seat.calls.items() if call not in done]
            late = [case for case in undone if case.deadline < now]
            if late:  # any unit of the actor may be the one that keeps the model from the others
                self._replace(seat, overdue(late[0].seconds), blamed=undone)

    def _replace(self, seat: Seat, fault: Fault, blamed: list[Case]) -> None:
        """End an actor and hire another; the units it had in hand fail if blamed, else they just go back."""
        ray.kill(seat.actor)  # one that is only out of reach must not go on
        self.seats[self.seats.index(seat)] = hire(self.make, self.cluster)
        for case in seat.calls.values():
            if case in blamed:
                self.attempts.fail(case, fault, seat)
            else:
                self.attempts.give_back(case)

    def _show(self) -> None:
        """Let the listener see how things are, now and then and whenever a worker comes or goes."""
        now, ready = time.monotonic(), sum(seat.building is None for seat in self.seats)
        if ready == self.ready and now < self.shown + SHOWN:
            return
        self.shown, self.ready = now, ready
        in_hand = tuple((case, seat) for seat in self.seats for case in seat.calls.values())
        self.listener.see(replace(self.attempts.state(), in_hand=in_hand, ready=ready, wanted=len(self.seats)))

    def _say_when_starved(self) -> None:
        now = time.monotonic()
        if any(seat.building is None for seat in self.seats):
            self.patience = now + PATIENCE
        elif now > self.patience:
            self.patience = now + PATIENCE
            logger.warning("no worker is ready yet; %s", asked_and_free(self.cluster))
