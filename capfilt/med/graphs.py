"""The steps of a batch through a model, captured as CUDA graphs: one launch in place of hundreds.

Python takes longer to launch the kernels of a decoding step, or of the texts of a batch, than a GPU takes to run them,
and may wait for other Python threads at each launch. A graph reads and writes fixed addresses, so a tape keeps its
tensors in place and serves batches of one size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from traceback import clear_frames
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from capfilt.memory import ALONE, out_of_memory_told

MAX_GRAPHS = 64  # graphs of a tape, one for each step and shape of input; each takes some megabytes
MAX_SHAPES = 4096  # shapes that are remembered, so that those that occur again are captured

S = TypeVar("S")  # the state of a batch
T = TypeVar("T")  # the result of a step
X = TypeVar("X")  # what a step is given besides the state
Batch = tuple[Tensor, *tuple[Tensor | None, ...]]  # all of equally many rows
Replay = Callable[[], object]


class Capture(Protocol):
    """Captures steps."""

    def __call__(self, step: Callable[[], T], /) -> tuple[T, Replay]:
        """Take a step; return its result, and a function that takes it again, with the result in the same place."""
        ...


class GraphRunner(Generic[S]):
    """Takes batches through a first step, which makes a state of each, and through further steps on that state.

    The steps of the largest batches so far, which are the full ones, are captured; those of smaller batches are
    launched kernel by kernel.
    """

    def __init__(self, first: Callable[..., S], capture: Callable[[], Capture] | None) -> None:
        """Take the first step, and what makes a Capture for the steps of one tape; with None, no step is captured."""
        self._first, self._capture = first, capture
        self.captures = capture is not None
        self._tape: Tape[S] | None = None

    def start(self, *batch: *Batch) -> S:
        """Take the first step on a batch and return its state, which the next full batch overwrites.

        All tensors but the first may be None.
        """
        with self._giving_back():
            if self._capture is None or (self._tape is not None and len(batch[0]) < self._tape.size):
                return self._first(*batch)
            if self._tape is None or len(batch[0]) > self._tape.size:
                self._forget()
                self._tape = Tape(self._first, batch, self._capture())
            return self._tape.start(batch)

    def go_on(self, step: Callable[[S, X], T], state: S, given: X) -> T:
        """Take another step on a batch's state and the given input, and return its result.

        The next step may overwrite the result.
        """
        with self._giving_back():
            if self._tape is None or state is not self._tape.state:
                return step(state, given)
            return self._tape.go_on(step, given)

    @contextmanager
    def _giving_back(self) -> Iterator[None]:
        """Forget the tape when memory runs out: from then on batches come in parts, which need its memory."""
        try:
            with out_of_memory_told():
                yield
        except torch.OutOfMemoryError as error:
            clear_frames((error.__cause__ or error).__traceback__)  # they hold the tape too, and outlive ALONE
            self._forget()
            raise

    def _forget(self) -> None:
        with ALONE:
            self._tape = None


class Tape(Generic[S]):
    """The steps of batches of one size, on tensors whose addresses stay the same."""

    def __init__(self, first: Callable[..., S], batch: Batch, capture: Capture) -> None:
        self.size = len(batch[0])
        self._capture = capture
        self._start = Step(first, batch, capture)
        self.state: S = self._start.result
        self._steps: dict[object, Step[Any]] = {}
        self._met: set[object] = set()

    def start(self, batch: Batch) -> S:
        """Return the state of a batch."""
        self._start(batch)
        return self.state

    def go_on(self, step: Callable[[S, X], T], given: X) -> T:
        """Return the result of a step on the state and the given input; it is captured when its shapes occur again."""
        leaves, _ = tree_flatten(given)
        key = step, *(leaf.shape if isinstance(leaf, Tensor) else leaf for leaf in leaves)
        if key not in self._steps:
            if key not in self._met:
                if len(self._met) == MAX_SHAPES:
                    self._met.clear()
                self._met.add(key)
                return step(self.state, given)
            if len(self._steps) == MAX_GRAPHS:
                with ALONE:
                    self._steps.clear()
            self._steps[key] = Step(partial(step, self.state), (given,), self._capture)
        return self._steps[key]((given,))  # type: ignore[no-any-return]


class Step(Generic[T]):
    """A captured function of tensors of fixed shapes."""

    def __init__(self, function: Callable[..., T], inputs: tuple[object, ...], capture: Capture) -> None:
        leaves, form = tree_flatten(inputs)
        self._inputs = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        fixed = tree_unflatten(self._inputs, form)
        self.result, self._replay = capture(lambda: function(*fixed))

    def __call__(self, inputs: tuple[object, ...]) -> T:
        """Return the function's result, which lies where the last one lay."""
        for mine, its in zip(self._inputs, tree_flatten(inputs)[0], strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(its, non_blocking=True)
        self._replay()
        return self.result


def graph_runner(first: Callable[..., S], kind: str) -> GraphRunner[S]:
    """Return what takes batches through a first step and others on a kind of device, "cpu" or "cuda"."""
    return GraphRunner(first, CAPTURES.get(kind))


def graph_capture() -> Capture:
    """Return what captures steps as graphs; they share memory, since they are replayed one after the other."""
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], T]) -> tuple[T, Replay]:
        step()  # kernels are compiled and libraries initialised at the first call
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the GPU, but capturing begins by waiting for all of the GPU's work.
        capturing = torch.cuda.graph(graph, pool, torch.cuda.current_stream(), capture_error_mode="thread_local")
        with ALONE, capturing:
            result = step()
        return result, graph.replay

    return capture


CAPTURES: dict[str, Callable[[], Capture]] = {"cuda": graph_capture}
"""By kind of device, what captures steps there; on others they are launched kernel by kernel."""
