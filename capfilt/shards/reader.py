"""Open a shard; its first bytes tell of which kind it is."""

from collections.abc import Iterator
from functools import lru_cache
from threading import Lock
from typing import Protocol

from capfilt.errors import ShardError
from capfilt.records import Sample, Shard
from capfilt.shards.archive import TarShard
from capfilt.shards.listing import LIST_SUFFIXES, ListShard
from capfilt.shards.parquet import PARQUET_MAGIC, ParquetShard
from capfilt.storage import exists, join, list_files, read_bytes

_LISTING = Lock()  # else many threads would list a large folder at once, and each hold its names
_HEAD = 512  # bytes that show the kind of a file


class ShardReader(Protocol):
    """A shard whose index was read. Its samples are read by position."""

    url: str
    size: int  # bytes
    digest: str  # of the index, by which a changed file is noticed
    samples: int
    damage: str  # what cannot be read, in one line; empty when the shard is whole

    def read(self, lo: int, hi: int) -> Iterator[Sample]:
        """Yield the samples of positions lo to hi - 1 in order, each position exactly once."""
        ...


def open_shard(url: str) -> ShardReader:
    """Read the index of a shard: the headers of a tar, the footer of a Parquet file, the lines of a list.

    Raises:
        ShardError: the file is no shard at all. A damaged shard is opened, and its damage says what is wrong.
    """
    try:
        head = read_bytes(url, 0, _HEAD)
    except IsADirectoryError:
        raise ShardError(f"{url}: there is no such file, but a folder; for the shards in it write {url}/") from None
    except FileNotFoundError as error:
        raise ShardError(f"{url}: there is no such file; list the shards anew") from error
    if not head:
        raise ShardError(f"{url}: is empty, 0 bytes; fetch it again")
    if url.endswith(LIST_SUFFIXES):
        return ListShard(url)
    shard = ParquetShard(url) if head.startswith(PARQUET_MAGIC) else TarShard(url, head)
    shard.damage = "; ".join(filter(None, [_unfinished(url), shard.damage]))
    return shard


def describe_damage(shard: Shard) -> str:
    """Return what is wrong with a damaged shard, and how to mend it. Fetching a list again gives the same lines."""
    if not shard.digest:  # no shard at all: its damage is an error that names the file and the remedy
        return shard.damage
    remedy = "mend these lines" if shard.url.endswith(LIST_SUFFIXES) else "fetch it again"
    return f"{shard.url}: {shard.damage}; {remedy}"


def _unfinished(url: str) -> str:
    """Return what is wrong if img2dataset did not finish this shard: it writes in place, and the statistics last."""
    folder, _, name = url.rpartition("/")
    for suffix in (".tar.gz", ".tgz", ".tar", ".parquet"):
        name = name.removesuffix(suffix)
    marker = f"{name}_stats.json"
    with _LISTING:
        has_markers = _has_markers(folder or ".")
    if not has_markers or exists(join(folder or ".", marker)):
        return ""
    return f"unfinished: {marker} is missing beside it"


@lru_cache(maxsize=1024)
def _has_markers(folder: str) -> bool:
    """Return whether img2dataset wrote to a folder. Cached, since a folder may hold 100,000 shards."""
    return any(name.endswith("_stats.json") for name in list_files(folder))
