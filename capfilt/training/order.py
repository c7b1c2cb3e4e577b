"""The order of training: which sample is at which place of which batch, from sample counts alone.

A pool of shards is read in passes (epochs). For each pass its shards are permuted and concatenated, and this sequence
of samples is cut into as many stretches as a batch has places for the pool, its lanes. Every step takes the next sample
of every stretch. So

- every sample is taken once a pass; a batch may take the last samples of one pass and the first of the next;
- the sample at a place depends on (seed, step, place), not on ranks, workers or earlier starts of the run;
- a lane reads its stretch shard by shard, so a process opens only the shards of its own places, and training can
  start at any step without going through the steps before it.

Neighbours in a shard stay together in blocks, which a lane reads at once: the blocks of a shard are permuted, and so
are the samples of a block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, Philox

SHARDS, SAMPLES, DRAWS = range(3)  # what a random number is for: different purposes have different streams


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
    """Return random numbers that depend on seed, purpose and place (up to three numbers) alone."""
    counter = [0, *place, *[0] * (3 - len(place))]  # the generator counts in the first
    return Generator(Philox(key=np.array([seed % 2**64, purpose], np.uint64), counter=np.array(counter, np.uint64)))


@dataclass(frozen=True)
class Pool:
    """Shards that are read together, and their places in a batch."""

    number: int  # of the pool among those of a mixture
    seed: int
    samples: Sequence[int]  # of every shard of the data, by its number
    epochs: Sequence[Sequence[int]]  # the shards of an epoch; after the last, the first comes again
    lanes: int  # places of a batch
    block: int  # samples

    def places(self, lane: int, step: int) -> Iterator[Place]:
        """Yield the samples of a lane, starting at a step, without end."""
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
        """The number of samples of the epoch that has the fewest."""
        return min(sum(self.samples[shard] for shard in shards) for shards in self.epochs)

    @cached_property
    def _ends(self) -> list[int]:
        """The number of samples up to the end of each epoch, in one round of epochs."""
        return list(accumulate(sum(self.samples[shard] for shard in shards) for shards in self.epochs))

    def _start(self, epoch: int) -> int:
        """Return the number of samples of all epochs before one."""
        rounds, nth = divmod(epoch, len(self.epochs))
        return rounds * self._ends[-1] + (self._ends[nth - 1] if nth else 0)

    def _epoch(self, draw: int) -> int:
        rounds, rest = divmod(draw, self._ends[-1])
        return rounds * len(self.epochs) + int(np.searchsorted(self._ends, rest, side="right"))

    def _pieces(self, epoch: int, lane: int) -> list[Piece]:
        """Return the parts of shards that make up a lane's stretch of an epoch.

        A stretch is as long as the lane's share of the draws from start to stop, and follows those of the lanes before
        it.
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
    """Return how many of the first draws belong to a lane; draw n belongs to lane n modulo lanes."""
    return (before - lane + lanes - 1) // lanes


def _draws_below(before: int, lane: int, lanes: int) -> int:
    """Return how many of the first draws belong to lanes before one."""
    return before // lanes * lane + min(before % lanes, lane)
