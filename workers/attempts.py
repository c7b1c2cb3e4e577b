"""Which unit is tried next, how often, and where: the rules of the pool that need no Ray.

A unit that failed is a suspect. Suspects run after all others and each alone on its actor, so that one
that kills its actor takes no bystander along, and every later failure is its own.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from capfilt.errors import WorkerError
from capfilt.records import Unit

MOST_LOSSES = 10  # times a unit may lose its node before that counts as its own failure

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Case:
    """A unit and what has happened to it. Times are on the monotonic clock."""

    unit: Unit
    failures: int = 0
    losses: int = 0  # of the node it ran on, which are nobody's fault
    failed_on: object = None  # where its last attempt failed
    not_before: float = 0.0
    deadline: float = math.inf

    def __str__(self) -> str:
        return f"{self.unit.shard.url}, samples {self.unit.lo} to {self.unit.hi}"


class Attempts:
    """The units of a job that are not done, and those that have failed for good."""

    def __init__(self, units: Iterable[Unit], attempts: int, strikes: int) -> None:
        """Allow each unit a number of attempts, and the job a number of strikes.

        A strike is a first attempt that failed, not through its data, with no success since the last strike:
        when one unit after another fails, the fault is in the code, the models or the machines.
        """
        self._attempts, self._most_strikes, self._strikes = attempts, strikes, 0
        self._fresh = deque(Case(unit) for unit in units)
        self._suspects: deque[Case] = deque()
        self.failed: list[str] = []

    def __len__(self) -> int:
        """Return how many units wait to be tried."""
        return len(self._fresh) + len(self._suspects)

    def take(self, place: object, *, idle: bool, alternative: bool) -> Case | None:
        """Take the next unit to try at a place, if there is one that may run there.

        Args:
            place: what has failed a unit before is avoided.
            idle: nothing else runs at this place.
            alternative: there are other places, so that avoiding one is possible.
        """
        if self._fresh:
            return self._fresh.popleft()
        now = time.monotonic()
        for case in self._suspects if idle else ():
            if case.not_before <= now and not (alternative and case.failed_on is place):
                self._suspects.remove(case)
                return case
        return None

    def succeed(self) -> None:
        """Note that a unit is done."""
        self._strikes = 0

    def give_back(self, case: Case) -> None:
        """Return a unit whose attempt ended through no fault of its own."""
        (self._suspects if case.failures else self._fresh).appendleft(case)

    def lose(self, case: Case, reason: str, place: object) -> None:
        """Return a unit whose node was lost, or count it as failed when that happens again and again."""
        case.losses += 1
        if case.losses > MOST_LOSSES:
            self.fail(case, reason, place)
        else:
            self.give_back(case)

    def fail(self, case: Case, reason: str, place: object, *, delay: float = 0.0, data: bool = False) -> None:
        """Count a failed attempt; the unit is a suspect from then on, or given up.

        Args:
            case: the unit.
            reason: one line for people.
            place: where it failed.
            delay: seconds until the next attempt, doubled with each.
            data: the fault is the unit's own data, so that no other attempt can succeed.

        Raises:
            WorkerError: too many strikes.
        """
        case.failures, case.failed_on = case.failures + 1, place
        case.not_before = time.monotonic() + delay * 2 ** (case.failures - 1)
        logger.warning("%s: attempt %d of %d: %s", case, case.failures, self._attempts, reason)
        if data or case.failures >= self._attempts:
            times = "once" if case.failures == 1 else f"{case.failures} times"
            self.failed.append(f"{case}: tried {times}: {reason}")
        else:
            self._suspects.append(case)
        self._strikes += case.failures == 1 and not data
        if self._strikes >= self._most_strikes:
            raise WorkerError(f"stopped, since {self._strikes} units failed one after the other; the last: {reason}")
