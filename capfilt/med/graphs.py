"""Decoding as CUDA graphs: one launch for some steps in place of hundreds for each.

A step takes the GPU less time than the processor takes to launch its kernels one by one. A graph reads and writes fixed
addresses, so a tape holds tensors that stay, for batches of one shape. Captions that are finished do not leave such a
batch; when all are, the rest of the steps is not taken.

Shapes: B images, M image tokens, D width, R captions, T the most tokens of a caption.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from capfilt.med.draft import Draft, Written
from capfilt.med.generation import Pen, write

T = TypeVar("T")
Replay = Callable[[], object]
Record = Callable[[Callable[[], T]], tuple[T, Replay]]


class Recorder:
    """Keeps the tape of the largest batches that were met, which are the whole ones; others are written without."""

    def __init__(self, record: Callable[[], Record[Any]] | None = None) -> None:
        """Take what makes a recorder for the steps of one tape. It does a step and makes a replay of it."""
        self._record = record or graphs
        self._tape: Tape | None = None

    def write(self, pen: Pen, states: Tensor, noise: Tensor | None = None) -> Written:
        """Write captions of image tokens, states (B, M, D); noise as in Pen.begin. The pen is always the same."""
        if self._tape is None or len(self._tape.states) < len(states):
            write(pen, pen.model.text.project_image(states), noise)  # libraries set themselves up at a first call
            self._tape = None  # gives its memory back before the next one takes some
            self._tape = Tape(pen, states, noise, self._record())
        if self._tape.states.shape == states.shape:
            return self._tape.write(states, noise)
        return write(pen, pen.model.text.project_image(states), noise)


class Tape:
    """The writing of batches of one shape, on tensors that stay where they are."""

    def __init__(self, pen: Pen, states: Tensor, noise: Tensor | None, record: Record[Any]) -> None:
        self.states, self._noise = states.clone(), None if noise is None else noise.clone()
        self._draft: Draft
        self._draft, begin = record(lambda: pen.begin(pen.model.text.project_image(self.states), self._noise))
        self._draft.fixed = True
        spells = [record(partial(pen.go_on, self._draft, steps)) for steps in pen.spells("cuda")]
        self._replays = [begin, *(replay for _, replay in spells)]

    def write(self, states: Tensor, noise: Tensor | None) -> Written:
        """Write captions of states (B, M, D)."""
        self.states.copy_(states)
        if self._noise is not None and noise is not None:
            self._noise.copy_(noise)
        for replay in self._replays:
            replay()
            if not self._draft.shrink():
                break
        return self._draft.finish()


def graphs() -> Record[Any]:
    """Return what records steps as graphs that share their memory: they are replayed one after the other."""
    pool = torch.cuda.graph_pool_handle()

    def record(step: Callable[[], T]) -> tuple[T, Replay]:
        captured = torch.cuda.CUDAGraph()
        # Other threads go on using the GPU meanwhile.
        with torch.cuda.graph(captured, pool, torch.cuda.current_stream(), capture_error_mode="thread_local"):
            result = step()
        return result, captured.replay

    return record
