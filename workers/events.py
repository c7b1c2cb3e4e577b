"""What happens to the units of a job, for those who follow it: its log, its journal, its metrics, its summary."""

import logging
from dataclasses import dataclass
from typing import Literal, Protocol

from capfilt.display import listed
from capfilt.records import Unit
from workers.faults import Cause

What = Literal["failed", "outage", "lost", "narrowed", "quarantined", "given_up"]

TOLD = 4  # units in hand that a message names

logger = logging.getLogger(__name__)

COUNTED: dict[What, str] = {
    "failed": "attempt",  # the first is 1
    "outage": "outage",  # of a disk or store
    "lost": "loss",  # of the node that the unit ran on
    "narrowed": "pieces",  # tried in place of the unit
    "quarantined": "position",  # of the sample
    "given_up": "attempts",
}

_LEVELS: dict[What, int] = {"narrowed": logging.INFO, "given_up": logging.ERROR}  # the others are warnings


@dataclass(frozen=True, slots=True)
class Event:
    """Something that went wrong with a unit, and what became of it."""

    what: What
    unit: Unit
    cause: Cause
    reason: str  # for people
    count: int  # the number that COUNTED names
    place: str = ""  # such as "pid 7 on 10.0.0.5"

    @property
    def failed_attempt(self) -> bool:
        """Whether this is an attempt at the unit by a worker that did not succeed."""
        return self.what in ("failed", "outage", "lost")

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the event's log line, besides its message."""
        names = {"event": self.what, "shard": self.unit.shard.id, "unit": self.unit.name}
        trial = {"trial": True} if self.unit.trial else {}
        place = {"place": self.place} if self.place else {}
        return {**names, **trial, COUNTED[self.what]: self.count, "cause": self.cause, **place}


@dataclass(frozen=True, slots=True)
class State:
    """Where the units are at one moment, and how many workers there are."""

    waiting: int = 0  # not tried yet
    outage: int = 0  # wait for a disk or store to come back
    suspect: int = 0  # have failed, and wait to be tried alone
    in_hand: tuple[tuple[object, object], ...] = ()  # units and where each is, both shown by str
    ready: int = 0  # workers with their models loaded
    wanted: int = 0  # workers that the job asks for

    def __str__(self) -> str:
        in_hand = listed([f"{unit} ({place})" for unit, place in self.in_hand], TOLD)
        return f"{self.ready} of {self.wanted} workers ready; in hand: {'; '.join(in_hand) or 'nothing'}"


class Listener(Protocol):
    """Follows a job. It is called by the driver's loop, so it must be quick, and must not raise."""

    def hear(self, event: Event) -> None:
        """Take note that something went wrong with a unit."""
        ...

    def see(self, state: State) -> None:
        """Take note of the state: once a second, when a worker comes or goes, and without Ray at each unit."""
        ...


class _Nobody:
    def hear(self, event: Event) -> None:
        pass

    def see(self, state: State) -> None:
        pass


NOBODY: Listener = _Nobody()
"""Follows nothing."""


def tell(listener: Listener, event: Event, words: str, *values: object) -> None:
    """Log an event in words, with fields to find it by, and pass it to the listener."""
    logger.log(_LEVELS.get(event.what, logging.WARNING), words, *values, extra=event.fields)
    listener.hear(event)
