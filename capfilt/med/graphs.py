"""The decoding step as CUDA graphs: one launch in place of some four hundred.

For up to some two hundred images a step takes the GPU less time than the processor takes to launch its kernels one by
one. A graph reads and writes fixed addresses, so a tape holds tensors that stay, for drafts of one shape, and a graph
for each step. Captions that are finished do not leave such a draft: its shape is what the graphs stand for.

Shapes: B images, R captions, T the most tokens of a caption, V vocabulary.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from capfilt.med.attention import KeysValues, SelfCache
from capfilt.med.draft import Draft, Writer, next_logits

MOST_IMAGES = 192  # of a draft; with more the GPU is busy enough, and rows that leave save more than launches do

Replay = Callable[[], object]
Record = Callable[[Callable[[], None]], Replay]


class Recorder:
    """Keeps the tape of the largest drafts that were met, which are those of whole batches; others go without one."""

    def __init__(self, record: Record | None = None) -> None:
        """Take what makes a replay out of a step that can be done again and again."""
        self._record = record or graph
        self._tape: Tape | None = None

    def take(self, model: Writer, draft: Draft) -> "Tape | None":
        """Return a tape that goes on with a draft, if there is one for its shape."""
        if len(draft.image[0][0]) > MOST_IMAGES:
            return None
        if self._tape is None or len(self._tape.last) < len(draft.ids):
            self._tape = None  # gives its memory back before the next one takes some
            self._tape = Tape(model, draft, self._record)
        return self._tape if self._tape.load(draft) else None


class Tape:
    """The steps of drafts of one shape, on tensors that stay where they are."""

    def __init__(self, model: Writer, draft: Draft, record: Record) -> None:
        self._model, self._record = model, record
        self._image = [(torch.empty_like(keys), torch.empty_like(values)) for keys, values in draft.image]
        self._caches = [SelfCache(torch.empty_like(one.keys), torch.empty_like(one.values)) for one in draft.caches]
        self.last = torch.empty_like(draft.ids[:, :1])  # int64 (R, 1)
        vocabulary = len(model.text.embeddings.words.weight)
        self._logits = self.last.new_empty((len(self.last), vocabulary), dtype=torch.float32)  # (R, V)
        self._replays: dict[int, Replay] = {}  # by position of the last token

    def load(self, draft: Draft) -> bool:
        """Take over what a draft has read so far, and return whether it has the shape for that."""
        mine, its = _tensors(self._image, self._caches), _tensors(draft.image, draft.caches)
        draft.fixed = all(one.shape == other.shape for one, other in zip(mine, its, strict=True))
        for one, other in zip(mine, its, strict=True) if draft.fixed else ():
            one.copy_(other)
        return draft.fixed

    def next_logits(self, last: Tensor, position: int) -> Tensor:
        """Return the logits (R, V) after the tokens last (R, 1) at a position; the next call overwrites them."""
        self.last.copy_(last)
        if position not in self._replays:
            self._replays[position] = self._record(partial(self._step, position))
        self._replays[position]()
        return self._logits

    def _step(self, position: int) -> None:
        self._logits.copy_(next_logits(self._model, self.last, self._image, self._caches, position))


def _tensors(image: list[KeysValues], caches: list[SelfCache]) -> list[Tensor]:
    return [tensor for pair in image for tensor in pair] + [
        one for cache in caches for one in (cache.keys, cache.values)
    ]


def graph(step: Callable[[], None]) -> Replay:
    """Return a replay of a step on the GPU."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries set themselves up at a first call, which cannot be captured
        step()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured, pool=_pool()):
        step()
    return captured.replay


@cache
def _pool() -> Any:
    """Return the memory that all graphs share: one is replayed at a time, and nothing is read from it afterwards."""
    return torch.cuda.graph_pool_handle()
