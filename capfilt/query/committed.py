"""The part of a run's ledger that counts: the tables that a commit record vouches for."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from capfilt import storage
from capfilt.errors import RunError
from capfilt.ledger import CANDIDATES, SAMPLES, checked_table, committed_units, is_complete, table_path
from capfilt.ledger.commits import Commit, read_commit
from capfilt.records import Shard, Unit
from capfilt.runs import Run
from capfilt.units import parse_name, without_overlap

READ = {"samples": [name for name in SAMPLES.names if name != "metadata"], "candidates": CANDIDATES.names}
"""Table -> the columns that are read: all but the metadata, which would outweigh the rest."""


@dataclass(frozen=True, slots=True)
class Part:
    """The tables of a complete shard, or of a unit of an incomplete one."""

    commit: Commit
    samples: pa.Table
    candidates: pa.Table


def read_parts(run: Run, shard: Shard) -> list[Part]:
    """Return what is committed of a shard: one part if it is complete, else one for each unit, by position.

    Raises:
        RunError: a file is not what its record says, or the record is of another run or input.
    """
    complete = is_complete(run, shard)
    try:
        parts = list(_parts(run, shard, complete))
        if complete or not is_complete(run, shard):
            return parts
    except (FileNotFoundError, RunError):
        if not is_complete(run, shard):
            raise
    return list(_parts(run, shard, complete=True))  # its units were folded into one while they were read


def draw_shards(shards: Sequence[Shard], share: float, seed: int = 0) -> list[Shard]:
    """Return a share of the shards, at least one, in their order; a smaller share is part of a larger one."""
    by_chance = sorted(shards, key=lambda shard: hashlib.sha256(f"{seed}/{shard.id}".encode()).digest())
    drawn = {shard.id for shard in by_chance[: math.ceil(share * len(shards))]}
    return [shard for shard in shards if shard.id in drawn]


def _parts(run: Run, shard: Shard, complete: bool) -> Iterator[Part]:
    folder = run.parts(shard)
    units = [] if complete else [Unit(shard, *parse_name(name)) for name in committed_units(run, shard)]
    stems = [folder] if complete else [storage.join(folder, unit.name) for unit in without_overlap(units)]
    for stem in stems:
        commit = read_commit(f"{stem}.json")
        if (commit.shard, commit.models, commit.digest) != (shard.id, run.models, shard.digest):
            raise RunError(f"{stem}.json: belongs to another run or input; remove it and bootstrap again")
        tables = {
            name: checked_table(table_path(stem, name), commit.sha256[name], columns) for name, columns in READ.items()
        }
        yield Part(commit, **tables)
