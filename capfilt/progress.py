"""How far a job is: a bar on a terminal, a plain line now and then in a log."""

import sys
import time
from collections import Counter
from datetime import timedelta
from types import TracebackType
from typing import Self

from tqdm import tqdm

from capfilt.records import UnitResult

INTERVAL = 30.0  # seconds between two lines of a log


class Tally:
    """What the units of a job came to so far."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.candidates: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()

    def add(self, result: UnitResult) -> None:
        """Count a unit in."""
        self.statuses.update(result.statuses)
        self.candidates.update(result.candidates)
        self.kept.update(result.kept)

    @property
    def shares(self) -> str:
        """The kept share of each source, for people."""
        return ", ".join(f"{source} {self.kept[source] / n:.0%} kept" for source, n in sorted(self.candidates.items()))

    def __str__(self) -> str:
        failed = {status: count for status, count in sorted(self.statuses.items()) if status != "ok"}
        reasons = ", ".join(f"{count} {status}" for status, count in failed.items())
        return (
            f"{self.statuses.total()} samples: {self.statuses['ok']} scored, {sum(failed.values())} failed"
            + (f" ({reasons})" if reasons else "")
            + f"; {self.candidates.total()} candidates"
            + (f" ({self.shares})" if self.candidates else "")
        )


class Progress:
    """Shows how many samples are done, how fast, and how long the rest will take."""

    def __init__(self, total: int, done: int) -> None:
        """Begin with `done` of `total` samples, which do not count towards the speed."""
        self._total, self._done, self._fresh = total, done, 0
        self._start = self._last = time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit=" images") if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, samples: int, note: str) -> None:
        """Show that samples were done, with a note."""
        self._done, self._fresh = self._done + samples, self._fresh + samples
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(samples)
        elif time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            sys.stderr.write(f"{self.line(self._last - self._start)}, {note}\n")

    def line(self, seconds: float) -> str:
        """Return how far the job is after some seconds."""
        speed = self._fresh / seconds
        left = timedelta(seconds=round((self._total - self._done) / speed)) if speed else "unknown time"
        return f"{self._done:,} of {self._total:,} samples, {speed:,.1f} images/s, {left} left"
