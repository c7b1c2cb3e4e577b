"""The images of samples that a person wants to see, read from the input shards.

If the shard cannot be read, or holds another image than the one that was scored, a reason takes the image's place.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from capfilt.errors import ShardError
from capfilt.indexing import open_planned
from capfilt.query.cards import Place
from capfilt.records import Shard
from capfilt.runs import Run

GONE = "the shard is gone, has changed or cannot be read"
NOT_SHOWN = "no image to show"  # beside the error that says why
_THREADS = 8  # object stores answer slowly, but many requests at once


def read_images(run: Run, hashes: Mapping[Place, str]) -> dict[Place, bytes | str]:
    """Return the encoded image of each place, as the shard holds it, or a text that says why there is none.

    All images are in memory at once.

    Args:
        run: the run.
        hashes: place -> sha256 of the image that was attempted there; empty if there was none.
    """
    wanted: dict[str, list[int]] = defaultdict(list)
    for shard, position in hashes:
        wanted[shard].append(position)
    shards = {shard.id: shard for shard in run.plan()}
    with ThreadPoolExecutor(_THREADS) as pool:
        batches = pool.map(lambda id_: list(_read(run, shards[id_], sorted(wanted[id_]), hashes)), wanted)
        return dict(pair for batch in batches for pair in batch)


def _read(
    run: Run, shard: Shard, positions: Sequence[int], hashes: Mapping[Place, str]
) -> Iterator[tuple[Place, bytes | str]]:
    """Yield the image of each position of a shard, or why it is missing, even if the whole shard is gone."""
    try:
        reader = open_planned(run, shard)
        images = {position: next(reader.read(position, position + 1)).image for position in positions}
    except (ShardError, OSError):
        images = {}
    for position in positions:
        yield (shard.id, position), _checked(images.get(position), hashes[shard.id, position])


def _checked(image: bytes | None, scored: str) -> bytes | str:
    """Return an image if it is the one that was scored, else the reason why it is not shown."""
    if image is None or (scored and hashlib.sha256(image).hexdigest() != scored):
        return GONE
    return image or "the shard holds no image for it"
