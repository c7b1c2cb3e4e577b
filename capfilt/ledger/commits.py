"""Commit records: the small file whose presence says that a unit, or a whole shard, is done."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from capfilt import storage
from capfilt.errors import RunError
from capfilt.fingerprint import fingerprint

N = TypeVar("N", int, float)

TABLES = ("samples", "candidates")


@dataclass(frozen=True, slots=True)
class Commit:
    """The outcome of a unit, or of all units of a shard: counts that add up, and the hashes of the tables."""

    shard: str  # id
    lo: int
    hi: int  # exclusive
    models: str  # fingerprint of everything that decides what the models say
    size: int  # of the input shard, bytes
    digest: str  # of the input shard's index
    damage: str  # of the input shard
    statuses: dict[str, int]  # samples by status; the sum is hi - lo
    text_statuses: dict[str, int]
    candidates: dict[str, int]  # texts by source
    tokens: int  # generated
    seconds: dict[str, float]  # by stage
    sha256: dict[str, str]  # of each table's file
    units: list[str]  # names of the units in it


def merge(commits: Sequence[Commit], sha256: dict[str, str]) -> Commit:
    """Return one record for neighbouring units; sha256 holds the hashes of their joint tables."""
    return replace(
        commits[0],
        hi=commits[-1].hi,
        statuses=add_up([commit.statuses for commit in commits]),
        text_statuses=add_up([commit.text_statuses for commit in commits]),
        candidates=add_up([commit.candidates for commit in commits]),
        tokens=sum(commit.tokens for commit in commits),
        seconds=add_up([commit.seconds for commit in commits]),
        sha256=sha256,
        units=[name for commit in commits for name in commit.units],
    )


def write_commit(path: str, commit: Commit) -> None:
    """Publish a commit record. All files that it names must be in place already."""
    storage.publish(path, seal(asdict(commit)))


def read_commit(path: str) -> Commit:
    """Return a commit record.

    Raises:
        RunError: the file is not a commit record.
    """
    try:
        return Commit(**unseal(storage.read_bytes(path)))
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: is not a commit record ({error!r}); remove the file and bootstrap again") from None


def seal(values: dict[str, object]) -> bytes:
    """Return values as JSON, together with their own fingerprint."""
    return json.dumps(values | {"check": fingerprint(values)}, indent=1).encode() + b"\n"


def unseal(data: bytes) -> dict[str, Any]:
    """Return the values of sealed JSON; raise ValueError, KeyError or TypeError if it is not sealed, or was changed."""
    try:
        values = json.loads(data)
    except RecursionError as error:  # brackets nested too deeply
        raise ValueError(str(error)) from None
    if not isinstance(values, dict) or values.pop("check") != fingerprint(values):
        raise ValueError("its values are not those that were written")
    return values


def add_up(counts: Iterable[dict[str, N]]) -> dict[str, N]:
    """Return the sum of counts, name by name."""
    total: dict[str, N] = {}
    for count in counts:
        for name, value in count.items():
            total[name] = total[name] + value if name in total else value
    return dict(sorted(total.items()))
