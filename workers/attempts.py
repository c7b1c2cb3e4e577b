"""Which unit is tried next, how often, and where: the rules of the pool that need no Ray.

A unit that failed is a suspect. Suspects run after all others and each alone on its actor, so that one
that kills its actor harms no other unit, and every later failure is its own.
"""

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from operator import length_hint

from capfilt.errors import WorkerError
from capfilt.records import Unit
from workers.events import NOBODY, Event, Listener, State, What, tell
from workers.faults import Fault, Kind
from workers.isolation import Case, Isolation, live

MAX_LOSSES = 10  # times a unit may lose its node before that counts as its own failure
MAX_OUTAGES = 6  # times a unit, or the building of a worker, may meet a full disk or a store that does not answer
BACKOFF = 1.0  # seconds before a retry after the first such outage, doubled with each


class Attempts:
    """The units of a job that are not done, and those that have failed for good."""

    def __init__(
        self,
        units: Iterable[Unit],
        tries: int,
        strikes: int,
        seconds: float = math.inf,
        isolation: Isolation | None = None,
        outages: int = MAX_OUTAGES,
        listener: Listener = NOBODY,
    ) -> None:
        """Allow each unit a number of tries, and the job a number of strikes.

        A unit that fails at its first try for another reason than its data, or that is given up because a store does
        not answer, counts as a strike; a success resets the count. When one unit after another fails, the fault is in
        the code, the models or the machines.

        Args:
            units: in the order in which they are started; each is made when its turn comes.
            tries: failures until a unit is given up, or narrowed down.
            strikes: the number that stops the job.
            seconds: what a try may take.
            isolation: narrows units down to the samples at fault; without it they are given up whole.
            outages: of a disk or store, until a unit is given up.
            listener: is told of each failure.
        """
        self._most_strikes, self._strikes = strikes, 0
        self._most_outages, self._isolation, self._listener = outages, isolation, listener
        self._cases = (Case(unit, tries, seconds) for unit in units)  # made when they are asked for
        self._unmade = length_hint(units)
        self._fresh: deque[Case] = deque()  # made, or given back
        self._waiting: list[Case] = []  # for a disk or store
        self._suspects: deque[Case] = deque()
        self._drained = False
        self.failed: list[str] = []

    def waiting(self, most: int) -> int:
        """Return how many units wait to be tried, at most `most`; 0 after drain."""
        if self._drained:
            return 0
        others = len(self._waiting) + len(self._suspects)
        while len(self._fresh) + others < most and self._make():
            pass
        return min(most, len(self._fresh) + others)

    def __bool__(self) -> bool:
        """Return whether a unit waits to be tried."""
        return bool(self.waiting(1))

    def drain(self) -> None:
        """Begin no other unit. Those in hand may still succeed or fail; one that fails is not tried again."""
        self._drained = True

    def state(self) -> State:
        """Return how many units wait, and for what."""
        return State(self._unmade + len(self._fresh), len(self._waiting), len(self._suspects))

    def _make(self) -> bool:
        """Queue the next unit that was never tried, and return whether there was one."""
        case = next(self._cases, None)
        if case is None:
            return False
        self._fresh.append(case)
        self._unmade = max(0, self._unmade - 1)
        return True

    def take(self, place: object, *, idle: bool, alternative: bool) -> Case | None:
        """Take the next unit to try at a place, if there is one that may run there.

        Args:
            place: avoided by a suspect whose last attempt failed there.
            idle: nothing else runs at this place.
            alternative: there are other places, so that one can be avoided.
        """
        if self._drained:
            return None
        now = time.monotonic()
        for case in self._waiting:
            if case.not_before <= now and (idle or not case.suspect):
                self._waiting.remove(case)
                return case
        patient = len(self._waiting) < self._most_strikes  # else no new unit begins until the store answers
        if patient and (self._fresh or self._make()):
            return self._fresh.popleft()
        for case in self._suspects if idle else ():
            if not (alternative and case.failed_on is place):
                self._suspects.remove(case)
                return case
        return None

    def succeed(self, case: Case) -> None:
        """Note that a unit is done."""
        self._strikes = 0
        if self._isolation is not None:
            self._suspects.extend(self._isolation.passed(case))

    def give_back(self, case: Case) -> None:
        """Put back a unit whose attempt ended through no fault of its own."""
        (self._suspects if case.suspect else self._fresh).appendleft(case)

    def lose(self, case: Case, fault: Fault, place: object) -> None:
        """Put back a unit whose node was lost, or count it as failed if that happens again and again."""
        case.losses, fault = case.losses + 1, replace(fault, cause="node")
        event = _event("lost", case.unit, fault, case.losses, place)
        tell(self._listener, event, "%s: loss %d of %d: %s", case, case.losses, MAX_LOSSES, fault.reason)
        if case.losses > MAX_LOSSES:
            self.fail(case, fault, place)
        else:
            self.give_back(case)

    def fail(self, case: Case, fault: Fault, place: object) -> None:
        """Count a failed attempt at a place; the unit then waits, becomes a suspect, is narrowed down or given up.

        Raises:
            WorkerError: too many strikes.
        """
        if case.unit.trial and case.search and case.search.closed:
            return
        if fault.kind is Kind.STORE:
            self._wait(case, fault, place)
            return
        case.failures, case.failed_on = case.failures + 1, place
        event = _event("failed", case.unit, fault, case.failures, place)
        tell(self._listener, event, "%s: attempt %d of %d: %s", case, case.failures, case.tries, fault.reason)
        if fault.kind is Kind.DATA:
            self._give_up(case, case.failures, fault)
            return
        if case.failures == 1 and not case.piece:
            self._strike(fault)
        if case.failures < case.tries:
            self._suspects.append(case)
            return
        smaller = self._isolation.narrow(case, fault) if self._isolation else None
        if smaller is None:
            self._give_up(case, case.failures, fault)
        else:
            if len(smaller) > 1:  # else a trial is over, and nothing is split
                event = _event("narrowed", case.unit, fault, len(smaller))
                tell(self._listener, event, "%s: narrowed down; %d units to try in its place", case, len(smaller))
            self._suspects.extend(smaller)

    def _wait(self, case: Case, fault: Fault, place: object) -> None:
        case.outages += 1
        event = _event("outage", case.unit, fault, case.outages, place)
        tell(self._listener, event, "%s: outage %d of %d: %s", case, case.outages, self._most_outages, fault.reason)
        if case.outages >= self._most_outages:
            self._give_up(case, case.outages, fault)
            self._strike(fault)
        else:
            case.not_before = time.monotonic() + backoff(case.outages)
            self._waiting.append(case)

    def _strike(self, fault: Fault) -> None:
        self._strikes += 1
        if self._strikes >= self._most_strikes:
            raise WorkerError(
                f"stopped: {self._strikes} units failed in a row; the last: {fault.reason}; fix what they have in "
                "common, then run the same again to go on"
            )

    def _give_up(self, case: Case, count: int, fault: Fault) -> None:
        """Count a unit as failed for good; for a trial, the batch that is searched."""
        self.failed.append(self._end(case, count, fault.reason))
        unit = case.search.case.unit if case.search else case.unit
        tell(self._listener, _event("given_up", unit, fault, count), "given up: %s", self.failed[-1])

    def _end(self, case: Case, count: int, reason: str) -> str:
        """Drop all that was still to be tried of a unit, and return in a line why it is given up."""
        search = case.search
        times = "once" if count == 1 else f"{count} times"
        if search is None:
            return f"{case}: tried {times}: {reason}"
        search.closed = True
        self._suspects = deque(other for other in self._suspects if other.search is not search)
        self._waiting = [other for other in self._waiting if other.search is not search]
        alone = ", ".join(str(held.position) for held in search.guilty)
        found = f"samples that fail alone: {alone}" if alone else "none of its samples fails alone"
        what = f"the trial of {', '.join(map(str, live(case.unit)))}" if case.unit.trial else "the unit"
        return f"{search.case}: {found}; {what} was tried {times}: {reason}"


def backoff(outages: int) -> float:
    """Return the seconds to wait after this many outages of a disk or store."""
    return BACKOFF * 2.0 ** (outages - 1)


def _event(what: What, unit: Unit, fault: Fault, count: int, place: object = None) -> Event:
    return Event(what, unit, fault.cause, fault.reason, count, str(place or ""))
