"""How a unit that fails again and again is narrowed down to the samples at fault. Nothing here knows Ray.

    a unit of several batches   is split at batch boundaries into smaller units: those that pass are committed, since
                                a cut between batches changes no byte
    a unit of one batch         is tried with most of its samples held, in smaller and smaller groups. Such a trial
                                commits nothing, because the other samples of a batch slightly change the numbers
    a sample that fails alone   is at fault when it has failed as often as any unit is tried
    when all trials are over    the batch is done with the samples at fault held, and committed

A worker that dies takes its models along, and loading them costs far more than a batch. So a split makes many pieces,
of which one fails, rather than two pieces again and again. A piece is split further at its first failure: that its unit
cannot be done is known by then, and after an accidental death one split too many changes nothing.

A trial costs as much as its whole batch, since held samples go through the captioner, too. A piece costs a start, and
reading a list or a .tgz from the beginning, whatever its size. So each may take as long as its unit, which is the least
that surely blames no sample for being slow: where the unit is done in time, so is each part of it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from capfilt.records import Held, Unit
from capfilt.units import piece
from workers.events import NOBODY, Event, Listener, tell
from workers.faults import Fault

PIECES = 8  # of a split


@dataclass(eq=False)
class Case:
    """A unit and what has happened to it. Times are on the monotonic clock."""

    unit: Unit
    tries: int  # failures of Kind.SAMPLE until it is given up or narrowed down
    seconds: float = math.inf  # what an attempt may take
    failures: int = 0
    losses: int = 0  # of the node that it ran on, which are nobody's fault
    outages: int = 0  # of a disk or store
    failed_on: object = None  # where its last attempt failed
    not_before: float = 0.0
    deadline: float = math.inf
    search: "Search | None" = None  # the search that it is part of, or that it concludes
    piece: bool = False  # of a failed unit

    @property
    def suspect(self) -> bool:
        """Whether it may kill or hang its actor, so that nothing else may run there."""
        return self.piece or self.failures > 0

    def __str__(self) -> str:
        name = self.unit.shard.url
        if self.unit.hi > self.unit.lo:  # else it is a whole shard whose samples are not known yet
            name += f", samples {self.unit.lo} to {self.unit.hi}"
        return f"{name}, trial of {', '.join(map(str, live(self.unit)))}" if self.unit.trial else name


@dataclass(eq=False)
class Search:
    """The search for the samples at fault in a unit of one batch."""

    case: Case
    open: int = 0  # trials that are not over
    closed: bool = False  # whether it was given up
    guilty: list[Held] = field(default_factory=list)


class Isolation:
    """Narrows units down to their samples at fault, up to a number of samples of each shard."""

    def __init__(self, batch_size: int, tries: int, most: int, listener: Listener = NOBODY) -> None:
        """Take the settings of the job.

        Args:
            batch_size: units are split at its multiples.
            tries: failures alone after which a sample is at fault.
            most: samples at fault in a shard, after which its failing units are given up. 0 splits nothing.
            listener: hears of each sample at fault.
        """
        self._batch_size, self._tries, self._most, self._listener = batch_size, tries, most, listener
        self._guilty: Counter[str] = Counter()  # by shard

    def narrow(self, case: Case, fault: Fault) -> list[Case] | None:
        """Return what to try in place of a unit that has used up its tries, or None to give it up."""
        if self._guilty[case.unit.shard.id] >= self._most:
            return None
        if case.unit.trial:
            return self._narrow_trial(case, fault)
        pieces = split(case.unit, self._batch_size)
        if len(pieces) > 1:
            return [Case(unit, tries=1, seconds=case.seconds, piece=True) for unit in pieces]
        if case.search is not None or not live(case.unit):  # it fails even with all samples at fault held
            return None
        return self._trials(Search(case), live(case.unit))

    def passed(self, case: Case) -> list[Case]:
        """Return what to try next after a unit was done."""
        return self._conclude(case.search) if case.unit.trial and case.search and not case.search.closed else []

    def _narrow_trial(self, case: Case, fault: Fault) -> list[Case]:
        samples, search = live(case.unit), case.search
        assert search is not None, "a trial is always part of a search"
        if len(samples) > 1:
            search.open -= 1
            return self._trials(search, samples)
        self._guilty[case.unit.shard.id] += 1
        event = Event("quarantined", search.case.unit, fault.cause, fault.reason, samples[0])
        words = "%s: sample %d fails alone and is quarantined: %s"
        tell(self._listener, event, words, search.case, samples[0], fault.reason)
        search.guilty.append(Held(samples[0], fault.error, fault.reason))
        return self._conclude(search)

    def _trials(self, search: Search, samples: Sequence[int]) -> list[Case]:
        """Return trials of groups of a batch's samples; a sample alone gets the full number of tries."""
        unit, size = search.case.unit, math.ceil(len(samples) / PIECES)
        cases = []
        for start in range(0, len(samples), size):
            group = samples[start : start + size]
            others = tuple(Held(at, "is held for a trial") for at in range(unit.lo, unit.hi) if at not in group)
            trial = replace(unit, held=others, trial=True)
            tries = self._tries if len(group) == 1 else 1
            cases.append(Case(trial, tries, search.case.seconds, search=search, piece=True))
        search.open += len(cases)
        return cases

    def _conclude(self, search: Search) -> list[Case]:
        """Count a trial as over; if it was the last of its search, return the batch with the samples at fault held."""
        search.open -= 1
        if search.open:
            return []
        unit = search.case.unit
        held = sorted([*unit.held, *search.guilty], key=lambda one: one.position)
        return [Case(replace(unit, held=tuple(held)), self._tries, search.case.seconds, search=search, piece=True)]


def split(unit: Unit, batch_size: int) -> list[Unit]:
    """Return the pieces of a unit, cut at multiples of the batch size; a unit of one batch is one piece."""
    batches = math.ceil(unit.hi / batch_size) - unit.lo // batch_size
    step = math.ceil(batches / PIECES) * batch_size
    return [piece(unit.shard, lo, min(lo + step, unit.hi), unit.held) for lo in range(unit.lo, unit.hi, max(step, 1))]


def live(unit: Unit) -> list[int]:
    """Return the positions of the samples that a unit does not hold."""
    held = {one.position for one in unit.held}
    return [position for position in range(unit.lo, unit.hi) if position not in held]
