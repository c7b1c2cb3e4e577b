"""Turns at the models of a device, for units that run at once, and for how long each unit had them."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from capfilt.prefetch import Stopwatch

Stage = Literal["caption", "score"]
Turn = AbstractContextManager[object]
"""A block in which one batch alone has a model."""

UNSHARED: Turn = nullcontext()
"""The turn of who shares a model with nobody."""


class Turns:
    """Who may have which model.

    Where both models are at work at once, each has half of the time: so the seconds of all units add up to those in
    which the device had something to do.
    """

    def __init__(self, apart: bool = False) -> None:
        """Let one batch be in one model at a time or, apart, one in each."""
        self.apart = apart
        one = threading.Lock()
        self._locks = {"caption": one, "score": threading.Lock() if apart else one}
        self._change = threading.Lock()
        self._working: dict[str, Stopwatch] = {}
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: Stage, clock: Stopwatch) -> Iterator[None]:
        """Wait for a model, keep it for a block, and add what that took of the device's time to a clock."""
        with self._locks[stage]:
            with self._time_shared():
                self._working[stage] = clock
            try:
                yield
            finally:
                with self._time_shared():
                    del self._working[stage]

    @contextmanager
    def _time_shared(self) -> Iterator[None]:
        """Share the time since the last change among those that had models, before there is another change."""
        with self._change:
            now = time.perf_counter()
            for stage, clock in self._working.items():
                clock.add(stage, (now - self._since) / len(self._working))
            self._since = now
            yield
