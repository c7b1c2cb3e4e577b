"""Follows a bootstrap: counts for its summary, entries for its journal, metrics for Prometheus."""

import time

from capfilt.display import redact
from capfilt.records import UnitResult
from capfilt.runs import Run, journal_line
from capfilt.tally import Tally
from workers.events import Event, State
from workers.metrics import Metrics

JOURNAL_EVERY = 10.0  # seconds between two additions to the journal, which on an object store is written anew by each


class Follower:
    """Sees all that becomes of a job's units. Outages are not noted: the store that is out may be the journal's."""

    def __init__(self, folder: Run) -> None:
        """Begin with nothing done."""
        self.tally, self.state = Tally(), State()
        self.metrics: Metrics | None = None  # until there is a Ray that exports them
        self._folder = folder
        self._lines: list[str] = []  # of the journal, not written yet
        self._written = 0.0

    def add(self, result: UnitResult) -> None:
        """Count a unit that was committed."""
        self.tally.add(result)
        if self.metrics:
            self.metrics.add(result)

    def hear(self, event: Event) -> None:
        """Take note of a failure."""
        self.tally.failures[event.cause] += event.failed_attempt
        if self.metrics:
            self.metrics.hear(event)
        if event.what != "outage":
            fields = {name: value for name, value in event.fields.items() if name != "event"}
            self._lines.append(journal_line(event.what, **fields, reason=redact(event.reason)))

    def see(self, state: State, *, last: bool = False) -> None:
        """Take note of how things are."""
        self.state = state
        spent = self.tally.work(state.ready)
        if self.metrics:
            self.metrics.see(state, spent)
        if self._lines and (last or time.monotonic() > self._written + JOURNAL_EVERY):
            self._folder.add_notes(self._lines)
            self._lines, self._written = [], time.monotonic()

    def close(self) -> None:
        """The job is over, or given up."""
        self.see(State(), last=True)

    def told(self) -> str:
        """Return what the job waits for, for people."""
        return str(self.state)
