"""How many bytes shards hold, the images that lists name included, and how many clean shards take at most."""

import random
from collections.abc import Sequence
from math import ceil
from statistics import fmean

from capfilt.records import Shard
from capfilt.shards import open_shard
from capfilt.shards.listing import LIST_SUFFIXES

DRAWN = 64  # samples of lists
PLACES = 16  # that they are drawn from

_MEMBERS = 3 * (512 + 256)  # a tar's headers and padding around an image, a text and a JSON
_SAMPLE = 4000  # headers, padding, web text and a row in Parquet, where the input has none of them
_CAPTION = 500  # text, source and score, in the tar and in Parquet


def bytes_of_listed(shards: Sequence[Shard], seed: int) -> float:
    """Return the mean bytes that a sample of a list takes in a tar, from some whose images are read.

    Args:
        shards: of all kinds; 0.0 where none is a list.
        seed: of the draw.
    """
    lists = [shard for shard in shards if _is_list(shard) and shard.samples]
    rng = random.Random(seed)
    chosen = rng.sample(lists, min(PLACES, len(lists)))
    found = []
    for shard in chosen:
        each = ceil(DRAWN / len(chosen))
        lo = rng.randrange(max(0, shard.samples - each) + 1)
        for sample in open_shard(shard.url).read(lo, min(lo + each, shard.samples)):
            found.append(len(sample.image) + len(sample.metadata.encode()) + _MEMBERS)
    return fmean(found) if found else 0.0


def bytes_held(shard: Shard, listed: float) -> float:
    """Return the size of a shard; a list has `listed` bytes more for each of its samples."""
    return shard.size + shard.samples * listed if _is_list(shard) else float(shard.size)


def most_clean(held: float, samples: float, captions: int) -> float:
    """Return the most bytes that the clean shards of samples of `held` bytes take; rare metadata may need more."""
    return held + samples * (_SAMPLE + captions * _CAPTION)


def _is_list(shard: Shard) -> bool:
    return shard.url.endswith(LIST_SUFFIXES)
