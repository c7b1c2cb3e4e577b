"""The mixture of a batch: which pool of shards fills each of its places."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from math import lcm

from capfilt.errors import ConfigError
from capfilt.training.catalogue import Catalogue
from capfilt.training.order import Place, Pool


class Mixture:
    """The pools of all sources, and the places of a batch that are dealt to them."""

    def __init__(self, catalogue: Catalogue, seed: int, places: int) -> None:
        """Make a pool of each source if they have weights, else one pool of all sources.

        Raises:
            ConfigError: a batch has no place for a source, or more places than an epoch of it has samples.
        """
        sources = catalogue.settings.mixture()
        epochs = [catalogue.epochs(source) for source in range(len(sources))]
        weights = [source.weight for source in sources if source.weight is not None]
        if not weights:
            weights, epochs = [1.0], [_joined(epochs)]
        self.dealt = deal(weights, places)
        lanes = Counter(pool for pool, _ in self.dealt)
        block = catalogue.settings.block_size
        self.pools = [Pool(n, seed, catalogue.samples, each, lanes[n], block) for n, each in enumerate(epochs)]
        for pool in self.pools:
            if pool.lanes > pool.smallest_epoch:
                raise ConfigError(
                    f"schedule.batch_size: {places}, of which {pool.lanes} come from a source, "
                    f"but there are {pool.smallest_epoch} samples; lower it"
                )

    def samples(self, place: int, step: int) -> Iterator[Place]:
        """Yield the samples at a place of the batch, starting at a step."""
        pool, lane = self.dealt[place]
        return self.pools[pool].places(lane, step)


def deal(weights: Sequence[float], places: int) -> list[tuple[int, int]]:
    """Return the pool and the lane of every place of a batch.

    Each pool gets its share of the places, rounded to a whole number, the same in every batch. Its lanes are spread
    evenly, so that every part of a batch has about the same mixture.

    Raises:
        ConfigError: the batch is too small to hold a sample of every pool.
    """
    exact = [places * weight / sum(weights) for weight in weights]
    lanes = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda pool: (lanes[pool] - exact[pool], pool))
    for pool in by_remainder[: places - sum(lanes)]:
        lanes[pool] += 1
    if 0 in lanes:
        none = lanes.index(0)
        raise ConfigError(
            f"data.sources.{none}: its weight gives it {exact[none]:.2f} of the {places} places of a batch; "
            "raise it, or schedule.batch_size"
        )
    spread = [((lane + 0.5) / count, pool, lane) for pool, count in enumerate(lanes) for lane in range(count)]
    return [(pool, lane) for _, pool, lane in sorted(spread)]


def _joined(epochs: Sequence[Sequence[Sequence[int]]]) -> list[list[int]]:
    """Return the epochs of a pool of several sources, each of which cycles through its own parts."""
    rounds = lcm(*map(len, epochs))
    return [list(chain.from_iterable(each[epoch % len(each)] for each in epochs)) for epoch in range(rounds)]
