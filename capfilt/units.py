"""Units: how a shard is cut into the pieces that are committed, and when it is given up."""

import math
from collections.abc import Collection, Mapping

from capfilt.config import BootstrapConfig
from capfilt.errors import ShardError
from capfilt.records import Shard, Unit


def cut_units(shard: Shard, config: BootstrapConfig, committed: Collection[str] = ()) -> list[Unit]:
    """Return the units of a shard that are left to do, given the names of the committed ones.

    Every unit begins at a multiple of the batch size, also when unit_size has changed since the others
    were cut. A shard without samples has one unit without samples.
    """
    step = math.ceil(config.unit_size / config.batch_size) * config.batch_size
    done = sorted(parse_name(name) for name in committed)
    if not shard.samples:
        return [] if done else [Unit(shard, 0, 0)]
    units, position = [], 0
    for lo, hi in [*done, (shard.samples, shard.samples)]:
        units += [Unit(shard, start, min(start + step, lo)) for start in range(position, lo, step)]
        position = max(position, hi)
    return units


def parse_name(name: str) -> tuple[int, int]:
    """Return the positions lo and hi in the name of a unit."""
    lo, _, hi = name.partition("-")
    return int(lo), int(hi)


def check_failures(shard: Shard, statuses: Mapping[str, int], config: BootstrapConfig) -> None:
    """Check the samples of a shard that were attempted so far against max_failed_share.

    Raises:
        ShardError: so many failed that the shard is over it, whatever becomes of its other samples.
    """
    failed = {status: count for status, count in statuses.items() if status != "ok"}
    count = sum(failed.values())
    if count > config.max_failed_share * shard.samples:
        reasons = ", ".join(f"{count} {status}" for status, count in sorted(failed.items()))
        raise ShardError(
            f"{shard.url}: {count} of {shard.samples} samples failed ({reasons}), which is over max_failed_share = "
            f"{config.max_failed_share:g}; look at the shard, or raise max_failed_share"
        )
