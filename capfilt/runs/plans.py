"""The file of a plan: a row for each shard of a run, as it was when the run was planned."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from capfilt import storage
from capfilt.errors import RunError
from capfilt.fingerprint import fingerprint
from capfilt.parquet import parquet_bytes, read_parquet
from capfilt.records import Shard

_LONGEST = 255 - len(".candidates.parquet")  # characters of an id: most disks allow 255 in a file name
_KEPT = 200  # characters of a name that are kept in its id when the id would be longer than that
_TAKEN = ("", "manifest")  # no name, and that of the manifest of clean shards, which their table would overwrite
_PLAN = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        "size": pa.int64(),
        "digest": pa.string(),
        "samples": pa.int64(),
        "damage": pa.string(),
    }
)

PLAN_ANEW = "remove the file and bootstrap again: the same inputs are planned again, and all that is committed is kept"


def write_plan(path: str, shards: Sequence[Shard]) -> None:
    """Publish a plan. The ids of its shards name files, so each has to be a plain file name, and unique.

    Raises:
        RunError: an id is not.
    """
    for shard in shards:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", shard.id):  # a dot would end the key of a sample in it
            raise RunError(f"{shard.url}: its id {shard.id!r} cannot name a file; use letters, digits, _ and -")
    double = sorted(id_ for id_, count in Counter(shard.id for shard in shards).items() if count > 1)
    if double:
        raise RunError(f"{path}: several shards have the id {', '.join(double)}; rename the files")
    storage.publish(path, plan_bytes(shards))


def plan_bytes(shards: Sequence[Shard]) -> bytes:
    """Return the table of some shards as a file."""
    return parquet_bytes(pa.Table.from_pylist([asdict(shard) for shard in shards], _PLAN))


def read_plan(path: str, remedy: str = PLAN_ANEW) -> list[Shard]:
    """Return the shards of a plan, in the order in which they were planned.

    Raises:
        RunError: the file is not a plan; the message gives the remedy.
    """
    data = storage.read_bytes(path)
    try:
        return [Shard(**row) for row in read_parquet(data).to_pylist()]
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:  # pyarrow raises OSError also for content
        cause = " ".join(str(error).split())
        raise RunError(f"{path}: is not a plan ({cause}); {remedy}") from None


def shard_ids(urls: Sequence[str]) -> list[str]:
    """Return an id for each shard: its file name, with a hash of the URL if that is taken or too long.

    The id of a shard depends on the set of URLs, not on their order.
    """
    names = [url.rpartition("/")[2] for url in urls]
    stems = [re.sub(r"\W", "_", re.sub(r"\.(tar(\.\w+)?|tgz|parquet)$", "", name), flags=re.ASCII) for name in names]
    count = Counter(stems)
    ids = []
    for stem, url in zip(stems, urls, strict=True):
        id_ = stem if stem not in _TAKEN and count[stem] == 1 else f"{stem}-{fingerprint(url)}"
        ids.append(id_ if len(id_) <= _LONGEST else f"{stem[:_KEPT]}-{fingerprint(url)}")
    return ids
