"""Follows a bootstrap: counts for its summary, entries for its journal, metrics for Prometheus."""

import threading
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from capfilt.display import redact
from capfilt.records import UnitResult
from capfilt.runs import Run
from capfilt.runs.journal import Journal, journal_line
from capfilt.runs.status import Board
from capfilt.tally import Tally
from workers.events import Event, State
from workers.metrics import Metrics

JOURNAL_EVERY = 10.0  # seconds between two additions to the journal


class Follower:
    """Follows the units of a job. Outages are not put into the journal, since its own store may be the one that is out.

    It is entered for as long as the job goes on. Meanwhile a thread writes the journal, so that a slow store does not
    hold up the job; it ends when all is written.
    """

    def __init__(self, folder: Run, board: Board | None = None) -> None:
        """Begin with nothing done; the board, if there is one, shows the workers."""
        self.tally, self.state = Tally(), State()
        self._board = board
        self.metrics: Metrics | None = None  # until there is a Ray that exports them
        self.journal = Journal(folder.root)  # within the block the thread's alone
        self._lines: SimpleQueue[str] = SimpleQueue()  # of the journal, not written yet
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="journal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The job is over, or given up."""
        self._over.set()
        self.see(State())
        self._thread.join()

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
            self._lines.put(journal_line(event.what, **fields, reason=redact(event.reason)))

    def see(self, state: State) -> None:
        """Take note of how things are."""
        self.state = state
        spent = self.tally.work(state.ready)
        if self._board:
            self._board.staff(state.ready, state.wanted)
        if self.metrics:
            self.metrics.see(state, spent)

    def _keep(self) -> None:
        while not self._over.wait(JOURNAL_EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        """Add what has come to the journal. This thread alone takes lines, so that they keep their order."""
        if lines := [self._lines.get() for _ in range(self._lines.qsize())]:
            self.journal.add(lines)
