"""The end of a shard: when all of its units are committed, it is checked as a whole and folded.

The worker that commits the last unit does this, so that the driver of many workers neither reads nor writes tables. Two
workers that commit at the same time may both do it, and write the same bytes; if neither does, the driver does.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from capfilt.config import BootstrapConfig
from capfilt.errors import RunError, ShardError
from capfilt.ledger.commits import read_commit
from capfilt.ledger.tables import checked_table, committed_units, fold, is_complete, table_path, unit_stem
from capfilt.records import Shard, Unit
from capfilt.runs import Run
from capfilt.units import check_failures, cover, parse_name


def complete_shard(run: Run, shard: Shard, config: BootstrapConfig) -> None:
    """Fold a shard whose units are all committed.

    Raises:
        ShardError: too many of its samples failed.
        RunError: its units do not add up to the shard, or a file is not what its record says.
        OSError: a file cannot be read or written.
    """
    units = cover(_committed(run, shard), shard.samples)
    try:
        if not is_complete(run, shard):
            _require_usable(run, shard, units, config)
        fold(run, shard, units)
    except (RunError, OSError):
        if not is_complete(run, shard):  # else another was faster, and removed the units while they were read
            raise


def complete_if_covered(run: Run, shard: Shard, config: BootstrapConfig) -> bool:
    """Complete a shard if all of its units are committed, and return whether it is complete.

    An error in this is not the unit's fault: the driver meets it again, and reports it.
    """
    try:
        if sum(unit.hi - unit.lo for unit in cover(_committed(run, shard), shard.samples)) != shard.samples:
            return False
        complete_shard(run, shard, config)
    except (ShardError, RunError, OSError):
        return False
    return True


def _require_usable(run: Run, shard: Shard, units: Sequence[Unit], config: BootstrapConfig) -> None:
    """Raise ShardError if too many samples of a shard failed, given all of its units."""
    statuses: Counter[str] = Counter()
    for unit in units:
        statuses.update(read_commit(f"{unit_stem(run, unit)}.json").statuses)
    try:
        check_failures(shard, statuses, config, _failed(run, units))
    except ShardError as error:  # a unit that alone has too many is never committed, and done anew anyway
        remedy = f"remove {run.parts(shard)} to have it done anew once its images can be read"
        raise ShardError(f"{error}; or {remedy}") from None


def _failed(run: Run, units: Sequence[Unit]) -> Iterator[tuple[str, str]]:
    """Yield key and error of each sample of the units that was not scored."""
    for unit in units:
        stem = unit_stem(run, unit)
        sha256 = read_commit(f"{stem}.json").sha256["samples"]
        table = checked_table(table_path(stem, "samples"), sha256, ["key", "status", "error"])
        for row in table.filter(pc.not_equal(table["status"], "ok")).to_pylist():
            yield row["key"], row["error"]


def _committed(run: Run, shard: Shard) -> list[Unit]:
    return [Unit(shard, *parse_name(name)) for name in committed_units(run, shard)]
