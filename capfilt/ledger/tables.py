"""The ledger: every sample that was attempted and every candidate with its scores, in two tables.

A unit writes its two tables and then its commit record; when all units of a shard are committed, they
are folded into one pair of tables and one record. A record's presence is the only state: tables
without one are left over from an attempt that died, and are written again.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capfilt import storage
from capfilt.errors import RunError
from capfilt.ledger.commits import TABLES, Commit, merge, read_commit, write_commit
from capfilt.ledger.schemas import SCHEMA_VERSION, SCHEMAS, candidates_table, samples_table
from capfilt.parquet import parquet_bytes, read_parquet
from capfilt.records import SampleRecord, Shard, Unit
from capfilt.runs import Run


def write_unit(
    run: Run,
    unit: Unit,
    records: Sequence[SampleRecord],
    candidates: pa.Table,
    seconds: Mapping[str, float],
) -> None:
    """Commit a unit: its tables, then its record. If it is committed already, alone or in its shard, nothing changes.

    Args:
        run: the run.
        unit: the unit.
        records: one for each sample of the unit, by position.
        candidates: candidates_table of the samples with status "ok", by position.
        seconds: time spent, by stage.

    Raises:
        RunError: the records do not account for every sample of the unit exactly once.
        OSError: a file cannot be written.
    """
    if is_complete(run, unit.shard) or storage.exists(f"{unit_stem(run, unit)}.json"):
        return
    _check_unit(unit, records, candidates)
    try:
        _write_unit(run, unit, records, candidates, seconds)
    except OSError:
        if not is_complete(run, unit.shard):  # else another attempt was faster, and the fold removed their folder
            raise


def read_unit(run: Run, unit: Unit) -> tuple[Commit, pa.Table] | None:
    """Return the commit record and candidates of a unit; None if it is not committed, or already folded into its shard.

    Raises:
        RunError: a file is not what its record says.
    """
    stem = unit_stem(run, unit)
    if not storage.exists(f"{stem}.json"):
        return None
    try:
        commit = read_commit(f"{stem}.json")
        return commit, checked_table(table_path(stem, "candidates"), commit.sha256["candidates"])
    except (RunError, OSError):
        if is_complete(run, unit.shard):  # another worker folded the shard, and removed the files while they were read
            return None
        raise


def committed_units(run: Run, shard: Shard) -> set[str]:
    """Return the names of a shard's committed units."""
    if is_complete(run, shard):
        return set(read_shard_commit(run, shard).units)
    return recorded(storage.list_files(run.parts(shard)))


def complete_shards(run: Run) -> set[str]:
    """Return the ids of all complete shards, by one listing."""
    return recorded(storage.list_files(run.ledger))


def recorded(names: Iterable[str]) -> set[str]:
    """Return the names of the units or shards that have a commit record among the files of a folder."""
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def is_complete(run: Run, shard: Shard) -> bool:
    """Return whether all units of a shard are committed and folded."""
    return storage.exists(commit_path(run, shard))


def fold(run: Run, shard: Shard, units: Sequence[Unit]) -> None:
    """Join the tables of a shard's units, so that a shard has three files however it was cut.

    The bytes of the tables depend on their rows alone. A shard that is folded already is left as it is;
    parts that an attempt left are removed.

    Raises:
        RunError: the units do not add up to the shard, one is not committed, or a file is not what its record says.
    """
    if not is_complete(run, shard):
        if not shard.samples:  # an empty shard needs a committed unit, too
            units = [Unit(shard, 0, 0)]
            write_unit(run, units[0], [], candidates_table(shard.id, []), {})
        ordered = sorted(units, key=lambda unit: unit.lo)
        edges = [0, *(unit.hi for unit in ordered)]
        if [unit.lo for unit in ordered] != edges[:-1] or edges[-1] != shard.samples:
            cut = ", ".join(unit.name for unit in ordered)
            raise RunError(f"{shard.url}: units {cut} do not make up its {shard.samples} samples")
        missing = {unit.name for unit in ordered} - committed_units(run, shard)
        if missing:
            raise RunError(f"{shard.url}: units {', '.join(sorted(missing))} are not committed; bootstrap again")
        _fold(run, shard, [unit_stem(run, unit) for unit in ordered])
    storage.remove_folder(run.parts(shard))


def read_samples(run: Run, shard: Shard) -> pa.Table:
    """Return the samples of a complete shard, by position."""
    return _read_table(run, shard, "samples")


def read_candidates(run: Run, shard: Shard) -> pa.Table:
    """Return the candidates of a complete shard, by position."""
    return _read_table(run, shard, "candidates")


def read_shard_commit(run: Run, shard: Shard) -> Commit:
    """Return the commit record of a complete shard."""
    return read_commit(commit_path(run, shard))


def table_hashes(run: Run, shard: Shard) -> dict[str, str]:
    """Return the hash of each table of a complete shard, by name; empty if it is not complete."""
    try:
        return read_shard_commit(run, shard).sha256
    except FileNotFoundError:
        return {}


def commit_path(run: Run, shard: Shard) -> str:
    """Return the path of a shard's commit record."""
    return f"{run.parts(shard)}.json"


def unit_stem(run: Run, unit: Unit) -> str:
    """Return the path of a unit's files without their suffixes."""
    return storage.join(run.parts(unit.shard), unit.name)


def table_path(stem: str, name: str) -> str:
    """Return the path of a table; stem is the path of its record without the suffix."""
    return f"{stem}.{name}.parquet"


def checked_table(path: str, sha256: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in a file, or some columns of it, after checking its hash.

    Raises:
        RunError: the file is not the one that was committed, or is gone.
    """
    try:
        data = storage.read_bytes(path)
    except FileNotFoundError:
        raise RunError(f"{path}: is missing; remove its .json and bootstrap again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RunError(f"{path}: is not the file that was committed; remove its .json and bootstrap again")
    return read_parquet(data, columns)


def write_tables(run: Run, stem: str, tables: dict[str, pa.Table]) -> dict[str, str]:
    """Publish the tables of a unit or shard, and return the hash of each file; stem as in table_path."""
    hashes = {}
    for name, table in tables.items():
        data = parquet_bytes(table.cast(SCHEMAS[name].with_metadata({"schema": SCHEMA_VERSION, "models": run.models})))
        storage.publish(table_path(stem, name), data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    return hashes


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Return how often each value of a column of strings occurs."""
    counts = {row["values"]: row["counts"] for row in column.value_counts().to_pylist()}
    return dict(sorted(counts.items()))


def _write_unit(
    run: Run, unit: Unit, records: Sequence[SampleRecord], candidates: pa.Table, seconds: Mapping[str, float]
) -> None:
    shard, stem = unit.shard, unit_stem(run, unit)
    tables = {"samples": samples_table(shard.id, records), "candidates": candidates}
    commit = Commit(
        shard=shard.id,
        lo=unit.lo,
        hi=unit.hi,
        models=run.models,
        size=shard.size,
        digest=shard.digest,
        damage=shard.damage,
        statuses=count_values(tables["samples"]["status"]),
        text_statuses=count_values(tables["samples"]["text_status"]),
        candidates=count_values(candidates["source"]),
        tokens=pc.sum(candidates["tokens"]).as_py() or 0,
        seconds={stage: round(value, 6) for stage, value in seconds.items()},
        sha256=write_tables(run, stem, tables),
        units=[unit.name],
    )
    write_commit(f"{stem}.json", commit)


def _fold(run: Run, shard: Shard, stems: Sequence[str]) -> None:
    commits = [read_commit(f"{stem}.json") for stem in stems]
    parts = list(zip(stems, commits, strict=True))
    tables = {
        name: pa.concat_tables(checked_table(table_path(stem, name), commit.sha256[name]) for stem, commit in parts)
        for name in TABLES
    }
    if not np.array_equal(tables["samples"]["position"].to_numpy(), np.arange(shard.samples)):
        raise RunError(f"{shard.url}: its units do not hold each of its {shard.samples} samples once")
    write_commit(commit_path(run, shard), merge(commits, write_tables(run, run.parts(shard), tables)))


def _read_table(run: Run, shard: Shard, name: str) -> pa.Table:
    if not is_complete(run, shard):
        raise RunError(f"{shard.url}: its ledger is not complete; bootstrap the run {run.root} to the end")
    return checked_table(table_path(run.parts(shard), name), read_shard_commit(run, shard).sha256[name])


def _check_unit(unit: Unit, records: Sequence[SampleRecord], candidates: pa.Table) -> None:
    place = f"{unit.shard.url}: unit {unit.name}"
    if [record.position for record in records] != list(range(unit.lo, unit.hi)):
        raise RunError(f"{place} has {len(records)} records that are not its {unit.hi - unit.lo} samples in order")
    scored = {record.position for record in records if record.status == "ok"}
    positions = candidates["position"].to_pylist()
    stray = set(positions) - scored
    if stray:
        raise RunError(f"{place} has candidates at positions {sorted(stray)}, where no sample was scored")
    if positions != sorted(positions):
        raise RunError(f"{place} has candidates that are not ordered by position")
