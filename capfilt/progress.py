"""How far a job is: a bar on a terminal, lines now and then in a log, and a line when nothing is done for long."""

import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from tqdm import tqdm

from capfilt.logs import say

INTERVAL = 30.0  # seconds between two lines of a log
SILENCE = 300.0  # seconds without anything done until that is said


class Progress:
    """Shows how many samples, or other things, are done, how fast, and how long the rest will take."""

    def __init__(self, total: int, done: int, waiting: Callable[[], str] = str, of: str = "samples") -> None:
        """Begin with `done` of `total` samples, which do not count towards the speed.

        Args:
            total: samples.
            done: those done before.
            waiting: says what the job waits for when nothing is done for long; called by another thread.
            of: what is counted.
        """
        self._of, self._pace = of, "images" if of == "samples" else of
        self._total, self._done, self._fresh, self._waiting = total, done, 0, waiting
        self._start = self._last = self._lately = time.monotonic()
        self._bar = tqdm(total=total, initial=done, unit=f" {self._pace}") if sys.stderr.isatty() else None
        self._over = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="progress", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._bar is not None:
            self._bar.close()

    def add(self, samples: int, note: str) -> None:
        """Show that samples were done, with a note."""
        self._done, self._fresh = self._done + samples, self._fresh + samples
        self._lately = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(samples)
        elif self._lately - self._last >= INTERVAL:
            self._last = self._lately
            say(f"{self.line(self._last - self._start)}, {note}")

    def line(self, seconds: float) -> str:
        """Return how far the job is after some seconds."""
        speed = self._fresh / seconds
        left = timedelta(seconds=round((self._total - self._done) / speed)) if speed else "unknown time"
        return f"{self._done:,} of {self._total:,} {self._of}, {speed:,.1f} {self._pace}/s, {left} left"

    def _watch(self) -> None:
        """Say when nothing was done for SILENCE, and again after each further SILENCE."""
        told = self._lately
        while not self._over.wait(max(told, self._lately) + SILENCE - time.monotonic()):
            now = time.monotonic()
            if now >= max(told, self._lately) + SILENCE:
                told = now
                silent = timedelta(seconds=round(now - self._lately))
                what = self._waiting()
                line = f"{self._done:,} of {self._total:,} {self._of}, nothing done for {silent}"
                say(f"{line}; {what}" if what else line)
