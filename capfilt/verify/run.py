"""Check a run by its files alone: nothing is missing, doubled, changed or left over."""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capfilt import storage
from capfilt.config import BootstrapConfig
from capfilt.display import counted
from capfilt.errors import RunError
from capfilt.ledger import SCHEMA_VERSION, SCHEMAS, checked_table, count_values, is_complete, table_path
from capfilt.ledger.commits import TABLES, Commit, read_commit
from capfilt.planning import unusable
from capfilt.records import Shard
from capfilt.runs import Run
from capfilt.units import parse_name
from capfilt.verify.clean import verify_clean
from capfilt.verify.quarantine import unplanned_records, verify_quarantine
from capfilt.verify.start import verify_indexes, verify_settings


def verify(run: Run) -> list[str]:
    """Return what is wrong with a run, one line each that names the file; nothing when it is whole.

    Reads settings, plan, indexes, and every file of the ledger and of the clean shards. That a run is not finished is a
    problem too.

    Raises:
        RunError: the run has no plan.
    """
    plan, config = run.plan(), run.config()
    problems = [*verify_settings(run), *verify_indexes(run, plan)]
    problems += [*_strangers(run, plan), *unplanned_records(run, plan)]
    sound = set()
    for shard in plan:
        found = list(_verify_shard(run, shard, config))
        problems += found
        if not found:
            sound.add(shard.id)
    return problems + list(verify_clean(run, [shard for shard in plan if not unusable(shard, config)], sound))


def _strangers(run: Run, plan: Sequence[Shard]) -> Iterator[str]:
    """Yield what lies in the ledger and belongs to no shard of the plan."""
    ids = {shard.id for shard in plan}
    files = {"json", *(f"{name}.parquet" for name in TABLES)}
    for name in storage.list_files(run.ledger):
        shard, _, ending = name.partition(".")
        if shard not in ids or ending not in files:
            yield f"{storage.join(run.ledger, name)}: belongs to no shard of the plan"
    for name in storage.list_folders(run.ledger):
        if name not in ids:
            yield f"{storage.join(run.ledger, name)}: belongs to no shard of the plan"
    ledgers = storage.join(run.root, "ledger")
    for name in [*storage.list_files(ledgers), *storage.list_folders(ledgers)]:
        if name != run.models:
            yield f"{storage.join(ledgers, name)}: is not part of the ledger of the run's models, {run.models}"


def _verify_shard(run: Run, shard: Shard, config: BootstrapConfig) -> Iterator[str]:
    parts = run.parts(shard)
    if not is_complete(run, shard):
        names = storage.list_files(parts)
        wanted = names or config.damage == "fail" or not unusable(shard, config)
        found = list(_verify_units(run, shard, names)) if wanted else []
        if not is_complete(run, shard):  # else it was completed meanwhile, and its units went
            yield from found
            return
    yield from _verify_commit(run, shard, parts, 0, shard.samples)
    if names := storage.list_files(parts):
        yield f"{parts}: {counted(len(names), 'file')} left over, such as {names[0]}; the next bootstrap removes them"


def _verify_units(run: Run, shard: Shard, names: Sequence[str]) -> Iterator[str]:
    """Yield what is wrong with a shard that is not complete; at least that it is not."""
    parts = run.parts(shard)
    units = [name.removesuffix(".json") for name in names if re.fullmatch(r"\d{8}-\d{8}\.json", name)]
    expected = {name for unit in units for name in (f"{unit}.json", *(table_path(unit, table) for table in TABLES))}
    for name in sorted(set(names) - expected):
        yield f"{storage.join(parts, name)}: belongs to no committed unit"
    position = 0
    for unit in units:
        lo, hi = parse_name(unit)
        if lo != position:
            kind = "are in no unit" if lo > position else "are in two units"
            yield f"{parts}: samples {min(lo, position)} to {max(lo, position) - 1} {kind}"
        yield from _verify_commit(run, shard, storage.join(parts, unit), lo, hi)
        position = max(position, hi)
    if position < shard.samples:
        yield f"{parts}: samples {position} to {shard.samples - 1} are in no unit"
    yield f"{parts}.json: is missing, so shard {shard.url} is not complete; bootstrap again" + (
        f" (damage: {shard.damage})" if shard.damage else ""
    )


def _verify_commit(run: Run, shard: Shard, stem: str, lo: int, hi: int) -> Iterator[str]:
    """Yield what is wrong with a commit record and the tables that it describes."""
    try:
        commit = read_commit(f"{stem}.json")
    except (OSError, RunError) as error:
        yield str(error)
        return
    planned = {"shard": shard.id, "lo": lo, "hi": hi, "models": run.models}
    planned |= {"size": shard.size, "digest": shard.digest, "damage": shard.damage}
    for name, value in planned.items():
        if getattr(commit, name) != value:
            yield f"{stem}.json: {name} is {getattr(commit, name)!r}, the plan says {value!r}"
    tables = {}
    for name in TABLES:
        path = table_path(stem, name)
        try:
            tables[name] = checked_table(path, commit.sha256.get(name, ""))
        except (OSError, RunError, pa.ArrowInvalid) as error:
            yield str(error) if path in str(error) else f"{path}: {error}"
            continue
        yield from _verify_schema(path, tables[name], name, run)
    if all(name in tables and tables[name].schema.equals(SCHEMAS[name]) for name in TABLES):
        yield from _verify_rows(stem, commit, lo, hi, tables["samples"], tables["candidates"])
        yield from verify_quarantine(run, shard, table_path(stem, "samples"), tables["samples"], lo, hi)


def _verify_schema(path: str, table: pa.Table, name: str, run: Run) -> Iterator[str]:
    metadata = table.schema.metadata or {}
    for key, value in {"schema": SCHEMA_VERSION, "models": run.models}.items():
        found = metadata.get(key.encode(), b"").decode()
        if found != value:
            yield f"{path}: has {key} {found!r}, the run {value!r}"
    if not table.schema.equals(SCHEMAS[name]):
        yield f"{path}: its columns are {table.schema.names}, not those of the {name} table"


def _verify_rows(stem: str, commit: Commit, lo: int, hi: int, samples: pa.Table, candidates: pa.Table) -> Iterator[str]:
    """Yield where the rows disagree with the record, the unit or each other."""
    found = {
        "statuses": count_values(samples["status"]),
        "text_statuses": count_values(samples["text_status"]),
        "candidates": count_values(candidates["source"]),
        "tokens": pc.sum(candidates["tokens"]).as_py() or 0,
    }
    for name, value in found.items():
        if getattr(commit, name) != value:
            yield f"{stem}.json: states {name} {getattr(commit, name)}, the tables hold {value}"
    for name, table in {"samples": samples, "candidates": candidates}.items():
        if set(table["shard"].unique().to_pylist()) - {commit.shard}:
            yield f"{table_path(stem, name)}: holds rows of other shards"
    if not np.array_equal(samples["position"].to_numpy(), np.arange(lo, hi)):
        yield f"{table_path(stem, 'samples')}: does not hold each of the samples {lo} to {hi - 1} once, in order"
        return
    path = table_path(stem, "candidates")
    scored = samples.filter(pc.equal(samples["status"], "ok"))
    stray = candidates.filter(pc.invert(pc.is_in(candidates["position"], scored["position"])))
    if stray.num_rows:
        strays = counted(stray.num_rows, "candidate")
        yield f"{path}: {strays} of samples that were not scored, first {stray['position'][0]}"
        return
    keys = samples["key"].take(pc.subtract(candidates["position"], lo))
    if not candidates["key"].equals(keys):
        yield f"{path}: its keys are not those of the samples"
    names = ["position", "source", "caption_index"]
    if candidates.group_by(names).aggregate([]).num_rows < candidates.num_rows:
        yield f"{path}: holds a candidate twice"
