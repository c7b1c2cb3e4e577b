"""Units: how a shard is cut into the pieces that are committed, and when the shard is given up."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

from capfilt.config import BootstrapConfig
from capfilt.display import reveal
from capfilt.errors import ShardError
from capfilt.records import Held, Shard, Unit

DEFAULT_SIZES = {"cuda": 4096, "cpu": 64}  # samples; a CPU takes seconds for each, and its units have deadlines, too
_TOLD, _KEY, _ERROR = 3, 60, 160  # failed samples that a message lists; characters of the key and error of each


def cut_units(
    shard: Shard, config: BootstrapConfig, left: Iterable[range] | None = None, held: Sequence[Held] = ()
) -> list[Unit]:
    """Return the units of a shard, or of the gaps that are left of it.

    Each unit holds those of the held samples that lie in it. Every unit begins at a multiple of the batch size, even if
    unit_size has changed since the committed ones were cut. A shard without samples has one unit without samples.
    """
    step = unit_step(config)
    return [
        piece(shard, lo, min(lo + step, gap.stop), held)
        for gap in (gaps(shard) if left is None else left)
        for lo in gap[::step] or [gap.start]
    ]


def gaps(shard: Shard, committed: Collection[str] = ()) -> list[range]:
    """Return the ranges of a shard's positions that are left, given the names of the committed units.

    A shard without samples has one empty range until its unit is committed.
    """
    if not shard.samples:
        return [] if committed else [range(0)]
    found = [Unit(shard, *parse_name(name)) for name in committed]
    done = without_overlap(cover(found, shard.samples))  # overlapping units that fit nowhere are done again
    starts = [0, *(unit.hi for unit in done)]
    ends = [*(unit.lo for unit in done), shard.samples]
    return [range(lo, hi) for lo, hi in zip(starts, ends, strict=True) if lo < hi]


def unit_step(config: BootstrapConfig) -> int:
    """Return the number of samples of a unit, in whole batches."""
    return math.ceil(unit_size(config) / config.batch_size) * config.batch_size


def unit_size(config: BootstrapConfig) -> int:
    """Return the number of samples of a unit before it is rounded up to whole batches."""
    return config.unit_size or DEFAULT_SIZES[config.device.kind]


def piece(shard: Shard, lo: int, hi: int, held: Iterable[Held]) -> Unit:
    """Return a unit of samples lo to hi, which holds those of the held samples that lie in it."""
    return Unit(shard, lo, hi, tuple(one for one in held if lo <= one.position < hi))


def cover(units: Iterable[Unit], samples: int) -> list[Unit]:
    """Return a choice of committed units that contains each of a shard's samples once.

    Units may overlap: a worker that was given up may still have finished its unit after that was split. Both
    hold the same rows. If no choice contains each sample once, all units are returned.
    """
    paths: dict[int, list[Unit]] = {0: []}  # by position: units that together cover the samples before it
    ordered = sorted(units, key=lambda unit: (unit.lo, unit.hi))
    for unit in ordered:
        if unit.lo in paths and unit.hi not in paths:
            paths[unit.hi] = [*paths[unit.lo], unit]
    return paths.get(samples, ordered)


def without_overlap(units: Iterable[Unit]) -> list[Unit]:
    """Return a choice of committed units that contains no sample twice: of two that begin alike, the longer."""
    chosen: list[Unit] = []
    for unit in sorted(units, key=lambda unit: (unit.lo, -unit.hi)):
        if not chosen or unit.lo >= chosen[-1].hi:
            chosen.append(unit)
    return chosen


def parse_name(name: str) -> tuple[int, int]:
    """Return the positions lo and hi in the name of a unit."""
    lo, _, hi = name.partition("-")
    return int(lo), int(hi)


def check_failures(
    shard: Shard, statuses: Mapping[str, int], config: BootstrapConfig, failed: Iterable[tuple[str, str]] = ()
) -> None:
    """Check the samples of a shard that were attempted so far against max_failed_share.

    Args:
        shard: the shard.
        statuses: how many of its attempted samples have each status.
        config: the job.
        failed: key and error of those that failed. Only the first are read, and only if there are too many.

    Raises:
        ShardError: so many failed that the shard is over the limit, whatever becomes of its other samples.
    """
    counts = {status: count for status, count in statuses.items() if status != "ok"}
    count = sum(counts.values())
    if count > config.max_failed_share * shard.samples:
        reasons = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        first = [f"; {reveal(key, _KEY)}: {reveal(error, _ERROR)}" for key, error in islice(failed, _TOLD)]
        raise ShardError(
            f"{shard.url}: {count} of {shard.samples} samples failed ({reasons}), which is over max_failed_share = "
            f"{config.max_failed_share:g}{''.join(first)}; look at the shard, or raise max_failed_share"
        )
