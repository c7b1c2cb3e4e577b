"""The plan of a run: which shards it has, fixed when it starts, and which of them can be used."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from capfilt.config import BootstrapConfig
from capfilt.errors import RunError, ShardError
from capfilt.ledger import committed_units
from capfilt.plans import shard_ids
from capfilt.records import Shard
from capfilt.runs import Run
from capfilt.shards import open_shard
from capfilt.storage import absolute

READERS = 8  # threads that read the shards' indexes


def plan_shards(run: Run, found: Sequence[str]) -> list[Shard]:
    """Return the shards of a run: indexed at the first start, and the same ones ever after.

    A shard that was damaged and of which nothing is committed is looked at again, since it may have been
    fetched again.

    Args:
        run: the run.
        found: the files that its inputs mean today.

    Raises:
        RunError: files came or went since the run was planned.
    """
    urls = [absolute(url) for url in found]  # workers have other current folders
    planned = run.plan() if run.has_plan() else []
    if planned:
        _check_same([shard.url for shard in planned], urls, run.root)
    if planned:
        with ThreadPoolExecutor(READERS) as pool:
            shards = list(pool.map(lambda shard: _look_again(run, shard), planned))
    else:
        shards = index_shards(urls)
    if shards != planned:
        run.write_plan(shards)
    return shards


def index_shards(urls: Sequence[str]) -> list[Shard]:
    """Return what is in some files by their indexes. One that is no shard has no samples, and its damage says why."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(_index, shard_ids(urls), urls))


def unusable(shard: Shard, config: BootstrapConfig) -> bool:
    """Return whether a shard is left out: damaged, unless what is readable of it is asked for."""
    readable = bool(shard.digest)
    return bool(shard.damage) and not (readable and config.damage == "keep-readable")


def _index(id_: str, url: str) -> Shard:
    try:
        reader = open_shard(url)
    except ShardError as error:  # no shard at all: planned without samples, so that it is accounted for
        return Shard(id_, url, 0, "", 0, str(error))
    return Shard(id_, url, reader.size, reader.digest, reader.samples, reader.damage)


def _look_again(run: Run, shard: Shard) -> Shard:
    return _index(shard.id, shard.url) if shard.damage and not committed_units(run, shard) else shard


def _check_same(planned: Sequence[str], found: Sequence[str], root: str) -> None:
    gone, new = sorted(set(planned) - set(found)), sorted(set(found) - set(planned))
    if gone or new:
        changes = [f"gone: {url}" for url in gone] + [f"new: {url}" for url in new]
        more = f"\n  and {len(changes) - 10} more" if len(changes) > 10 else ""
        raise RunError(
            f"{root}: the inputs are not those that the run was planned with; put them back, or start another run\n  "
            + "\n  ".join(changes[:10])
            + more
        )
