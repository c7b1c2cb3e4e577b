"""Turns at the models of a device for units that run at once, and the time that each unit had them."""

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

from capfilt.stopwatch import Stopwatch

Stage = Literal["caption", "score"]
Turn = AbstractContextManager[object]
"""A context in which one batch has a model to itself."""

UNSHARED: Turn = nullcontext()
"""The turn of a caller that shares the model with nobody."""


class Turns:
    """Who may use which model.

    While both models are at work, each is charged half of the time, so that the seconds of all units add up to the
    time in which the device was busy.
    """

    def __init__(self, apart: bool = False) -> None:
        """Let one batch at a time use either model or, if apart, one batch each of them."""
        self.apart = apart
        one = threading.Lock()
        self._locks = {"caption": one, "score": threading.Lock() if apart else one}
        self._change = threading.Lock()
        self._working: dict[str, Stopwatch] = {}
        self._since = 0.0

    @contextmanager
    def __call__(self, stage: Stage, clock: Stopwatch) -> Iterator[None]:
        """Wait for a model, keep it for a block, and add the device time that the block took to a clock."""
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
        """Divide the time since the last change among those that had models, and then make another change."""
        with self._change:
            now = time.perf_counter()
            for stage, clock in self._working.items():
                clock.add(stage, (now - self._since) / len(self._working))
            self._since = now
            yield
