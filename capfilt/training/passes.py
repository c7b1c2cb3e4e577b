"""Batches of numbered entries, such as those of an annotation file, over many passes.

For each pass (an epoch) the entries are permuted, and the permutations are concatenated. A batch takes the next entries
of this sequence, so every entry comes once a pass, and the batch of a step depends on seed and step alone.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from capfilt.config.training import Schedule
from capfilt.errors import CapfiltError, ConfigError, RunError
from capfilt.training.job import Data_co
from capfilt.training.loading import Failure, taken, unchanged
from capfilt.training.order import DRAWS, SAMPLES, chance

Item = TypeVar("Item")


class Draw(NamedTuple):
    """One entry of a batch, with what its random numbers depend on."""

    sample: int  # number of the entry
    seed: int
    number: int  # of the draw, counted from the start of training

    def generator(self) -> Generator:
        """Return the random number generator of this draw."""
        return chance(self.seed, DRAWS, self.number)


class Entries(Protocol[Item, Data_co]):
    """Numbered entries that batches are made of."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, draw: Draw) -> Item:
        """Return an entry, prepared for a batch."""
        ...

    def collate(self, items: list[Item]) -> Data_co:
        """Put entries together."""
        ...

    def content(self) -> Iterable[tuple[object, ...]]:
        """Return each entry as values that JSON can hold, to notice changes."""
        ...


class Passes(Generic[Item, Data_co]):
    """A training set: entries in the order of permutations."""

    left_out: Mapping[str, int] = {}  # an entry that cannot be used stops the training

    def __init__(self, entries: Entries[Item, Data_co], schedule: Schedule, seed: int, workers: int) -> None:
        """Make batches of the schedule's size; `workers` processes read for each share of a batch.

        Raises:
            ConfigError: a batch is larger than a pass.
        """
        if len(entries) < schedule.batch_size:
            raise ConfigError(
                f"schedule.batch_size: {schedule.batch_size}, but there are {len(entries)} entries; lower it"
            )
        self.entries, self.seed, self.workers = entries, seed, workers
        self.batch_size = schedule.batch_size
        self.epoch_steps = len(entries) // schedule.batch_size

    def __len__(self) -> int:
        return len(self.entries)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the number of entries, int64 (), and a hash of their content, uint8 (32,)."""
        digest = torch.frombuffer(bytearray(self._digest), dtype=torch.uint8)
        return {"entries": torch.tensor(len(self)), "digest": digest}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Check that the entries, and so their order, are those that the run started with.

        Raises:
            RunError: entries were added, removed or changed.
        """
        before = int(state.get("entries", len(self)))
        if before != len(self):
            raise RunError(
                f"data.files: hold {len(self):,} entries, {before:,} when the run started, which changes their order; "
                "put the files back, or train in another folder"
            )
        if "digest" in state and bytes(state["digest"].tolist()) != self._digest:
            raise RunError(
                "data.files: hold as many entries as when the run started, but with other content; "
                "put the files back, or train in another folder"
            )

    @cached_property
    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for entry in self.entries.content():
            digest.update(json.dumps(entry).encode() + b"\n")
        return digest.digest()

    def batches(self, steps: range, share: int = 0, shares: int = 1) -> Iterator[Data_co]:
        """Yield, for each step, one of equally large shares of its batch."""
        return _load(self.entries, self._draws(steps, share, shares), self.workers)

    def _draws(self, steps: range, share: int, shares: int) -> "_Draws":
        each = self.batch_size // shares
        spans = [
            range(step * self.batch_size + share * each, step * self.batch_size + (share + 1) * each) for step in steps
        ]
        return _Draws(spans, len(self.entries), self.seed)


class _Draws:
    """The draws of each batch."""

    def __init__(self, spans: list[range], entries: int, seed: int) -> None:
        self.spans, self.entries, self.seed = spans, entries, seed

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[list[Draw]]:
        orders: dict[int, np.ndarray] = {}  # by pass; a batch takes from at most two
        for span in self.spans:
            passes = {number // self.entries for number in (span[0], span[-1])}
            orders = {n: orders[n] if n in orders else self._order(n) for n in passes}
            yield [self._draw(number, orders) for number in span]

    def _order(self, number: int) -> np.ndarray:
        return chance(self.seed, SAMPLES, number).permutation(self.entries)

    def _draw(self, number: int, orders: Mapping[int, np.ndarray]) -> Draw:
        nth, place = divmod(number, self.entries)
        return Draw(int(orders[nth][place]), self.seed, number)


def in_order(entries: Entries[Item, Data_co], size: int, seed: int, workers: int) -> Iterator[Data_co]:
    """Yield all entries once, in batches of a size and in their order, for evaluation."""
    starts = range(0, len(entries), size)
    spans = (range(start, min(start + size, len(entries))) for start in starts)
    return _load(entries, [[Draw(number, seed, number) for number in span] for span in spans], workers)


def _load(entries: Entries[Item, Data_co], draws: Iterable[list[Draw]], workers: int) -> Iterator[Data_co]:
    loader = DataLoader(_Looked(entries), batch_sampler=draws, collate_fn=unchanged, num_workers=workers)
    yield from taken(iter(loader))


class _Looked(Dataset[object], Generic[Item, Data_co]):
    """Entries in batches, made in the loader's processes."""

    def __init__(self, entries: Entries[Item, Data_co]) -> None:
        self.entries = entries

    def __getitems__(self, draws: list[Draw]) -> Data_co | Failure:
        """Return the batch of some draws; torch calls a method of this name, if there is one, for a whole batch."""
        try:
            return self.entries.collate([self.entries[draw] for draw in draws])
        except (CapfiltError, OSError) as failure:
            return failure
