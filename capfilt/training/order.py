"""The order of training: which sample stands at which place of which batch, by arithmetic on sample counts alone.

A pool of shards is passed over again and again. For a pass (an epoch) its shards are permuted and laid end to end, and
this row of samples is cut into as many stretches as a batch has places for the pool, its lanes. Every step takes the
next sample of every stretch. So

- every sample comes once a pass; a batch at a seam takes the last samples of one pass and the first of the next;
- the sample at a place follows from (seed, step, place), and from neither ranks, workers nor what was run before;
- a lane goes through its stretch from shard to shard, so that a process opens the shards of its own places only,
  and a step is entered without looking at the steps before it.

Neighbours in a shard stay together in blocks, that a lane can read in one go: the blocks of a shard are permuted, and
the samples of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, Philox

SHARDS, SAMPLES, DRAWS = range(3)  # what a random number is for: streams of different purposes never meet


class Place(NamedTuple):
    """Where a sample is."""

    shard: int  # number among all shards of the data
    position: int  # in the shard


class Piece(NamedTuple):
    """Samples lo to hi - 1 of a shard, counted in the order of an epoch."""

    shard: int
    lo: int
    hi: int


def chance(seed: int, purpose: int, *place: int) -> Generator:
    """Return random numbers that belong to a purpose and a place (up to three numbers) alone."""
    counter = [0, *place, *[0] * (3 - len(place))]  # the generator itself counts in the first
    return Generator(Philox(key=np.array([seed % 2**64, purpose], np.uint64), counter=np.array(counter, np.uint64)))


@dataclass(frozen=True)
class Pool:
    """Shards that are passed over together, and their share of a batch."""

    number: int  # of the pool among those of a mixture
    seed: int
    samples: Sequence[int]  # of every shard of the data, by its number
    epochs: Sequence[Sequence[int]]  # the shards of an epoch; after the last, the first comes again
    lanes: int  # places of a batch
    block: int  # neighbours that stay together

    def places(self, lane: int, step: int) -> Iterator[Place]:
        """Yield the samples of a lane from a step on, without end."""
        epoch = self._epoch(step * self.lanes + lane)
        skip = step - _draws(self._start(epoch), lane, self.lanes)
        while True:
            for piece in self._pieces(epoch, lane):
                lo = min(piece.lo + skip, piece.hi)
                skip -= lo - piece.lo
                order = self._order(epoch, piece.shard)[lo : piece.hi]
                yield from (Place(piece.shard, position) for position in order.tolist())
            epoch += 1

    @property
    def smallest_epoch(self) -> int:
        """The samples of the epoch that has the fewest."""
        return min(sum(self.samples[shard] for shard in shards) for shards in self.epochs)

    @cached_property
    def _ends(self) -> list[int]:
        """The samples up to the end of each epoch, of one round of epochs."""
        return list(accumulate(sum(self.samples[shard] for shard in shards) for shards in self.epochs))

    def _start(self, epoch: int) -> int:
        """Return the samples of all epochs before one."""
        rounds, nth = divmod(epoch, len(self.epochs))
        return rounds * self._ends[-1] + (self._ends[nth - 1] if nth else 0)

    def _epoch(self, draw: int) -> int:
        rounds, rest = divmod(draw, self._ends[-1])
        return rounds * len(self.epochs) + int(np.searchsorted(self._ends, rest, side="right"))

    def _pieces(self, epoch: int, lane: int) -> list[Piece]:
        """Return the parts of shards that make up a lane's stretch of an epoch.

        A stretch is as long as the lane's share of the draws from start to stop, and lies after those of the lanes
        before it.
        """
        start, stop = self._start(epoch), self._start(epoch + 1)
        lo, hi = (_draws_below(stop, n, self.lanes) - _draws_below(start, n, self.lanes) for n in (lane, lane + 1))
        shards = np.asarray(self.epochs[epoch % len(self.epochs)])
        shards = chance(self.seed, SHARDS, self.number, epoch).permutation(shards)
        ends = np.cumsum([self.samples[shard] for shard in shards])
        pieces = []
        for at in range(int(np.searchsorted(ends, lo, side="right")), len(shards)):
            shard, end = int(shards[at]), int(ends[at])
            first = end - self.samples[shard]
            if first >= hi:
                break
            pieces.append(Piece(shard, max(lo - first, 0), min(hi, end) - first))
        return pieces

    def _order(self, epoch: int, shard: int) -> np.ndarray:
        """Return the positions of a shard in the order of an epoch."""
        samples = self.samples[shard]
        rng = chance(self.seed, SAMPLES, self.number, epoch, shard)
        blocks = rng.permutation(-(-samples // self.block))[np.arange(samples) // self.block]
        return np.lexsort((rng.random(samples), blocks))


def _draws(before: int, lane: int, lanes: int) -> int:
    """Return how many of the first draws are a lane's; draw n is that of lane n modulo lanes."""
    return (before - lane + lanes - 1) // lanes


def _draws_below(before: int, lane: int, lanes: int) -> int:
    """Return how many of the first draws are those of lanes under one."""
    return before // lanes * lane + min(before % lanes, lane)
