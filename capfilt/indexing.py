"""The indexes of a run's tars, kept with its plan: their headers are read once, not again for each unit.

An index counts only for the version of the file that it was made from. For any other, the headers are read again and
compared with the plan, as without an index: a copy of the file is accepted, and a changed file is refused.
"""

import logging
from collections.abc import Iterator

from capfilt import storage
from capfilt.errors import ShardError
from capfilt.records import Shard
from capfilt.runs import Run
from capfilt.shards import ShardReader, open_shard
from capfilt.shards.archive import TarShard
from capfilt.shards.stored import IndexedTar, index_bytes

logger = logging.getLogger(__name__)


def shard_at(id_: str, url: str) -> Shard:
    """Return what a file holds by its headers, and keep nothing. What is no shard has no samples, and is damage.

    Raises:
        OSError: the file does not answer.
    """
    try:
        return _shard(id_, open_shard(url))
    except ShardError as error:
        return _no_shard(id_, url, error)


def index_shard(run: Run, id_: str, url: str) -> Shard:
    """Return what a file holds as shard_at does, and keep the index of a tar.

    Raises:
        OSError: the file or the run folder does not answer.
    """
    try:
        before = storage.version(url)
        reader = open_shard(url)
    except (ShardError, FileNotFoundError) as error:
        return _no_shard(id_, url, error)
    if isinstance(reader, TarShard) and not reader.packed and before == storage.version(url):
        storage.publish(_path(run, id_), index_bytes(reader, reader.damage, before))
    return _shard(id_, reader)


def indexed_shards(run: Run) -> set[str]:
    """Return the ids of the shards that have an index, by one listing."""
    return {name.removesuffix(".index") for name in storage.list_files(run.indexes)}


def known_shard(run: Run, id_: str, url: str) -> Shard | None:
    """Return what a file holds by its kept index, if that is of the file as it is now and nothing was wrong with it."""
    index = _kept(run, id_, url)
    return _shard(id_, index) if index and not index.damage else None  # what was missing may have come since


def check_index(run: Run, shard: Shard) -> Iterator[str]:
    """Yield what is wrong with the kept index of a shard."""
    path = _path(run, shard.id)
    try:
        IndexedTar(shard.url, storage.read_bytes(path))
    except OSError as error:  # says nothing of what is in it
        yield str(error)
    except ValueError as error:
        yield f"{path}: is not an index ({error}); remove it: the headers of {shard.url} are read in its place"


def open_planned(run: Run, shard: Shard) -> ShardReader:
    """Open a shard of a run, which must be the file that was planned.

    Raises:
        ShardError: it is another file, or none.
    """
    index = _kept(run, shard.id, shard.url)
    reader: ShardReader = index if index and index.digest == shard.digest else open_shard(shard.url)
    if (reader.size, reader.digest) != (shard.size, shard.digest):
        raise ShardError(
            f"{shard.url}: has changed since it was planned; put the file back that was there, or start another run"
        )
    return reader


def _shard(id_: str, reader: ShardReader) -> Shard:
    passed_over = reader.passed_over if isinstance(reader, TarShard) else {}
    return Shard(id_, reader.url, reader.size, reader.digest, reader.samples, reader.damage, passed_over)


def _no_shard(id_: str, url: str, error: Exception) -> Shard:
    """Return the plan's row of a file that is no shard, so that the file is accounted for."""
    return Shard(id_, url, size=0, digest="", samples=0, damage=str(error))


def _kept(run: Run, id_: str, url: str) -> IndexedTar | None:
    path = _path(run, id_)
    try:
        index = IndexedTar(url, storage.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        logger.warning("%s: is not an index (%s); the headers of %s are read again", path, error, url)
        return None
    try:
        return index if index.version and index.version == storage.version(url) else None
    except FileNotFoundError:
        return None


def _path(run: Run, id_: str) -> str:
    return storage.join(run.indexes, f"{id_}.index")
