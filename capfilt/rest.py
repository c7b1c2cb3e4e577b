"""What is left of a run: the units that are not committed, told by listings of its folders."""

from collections.abc import Sequence
from dataclasses import dataclass

from capfilt import storage
from capfilt.config import BootstrapConfig
from capfilt.ledger import committed_units, complete_shards
from capfilt.quarantine import quarantined, quarantined_shards
from capfilt.records import Shard, Unit
from capfilt.runs import Run
from capfilt.units import cut_units


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left to do of some shards."""

    units: list[Unit]
    ready: list[Shard]  # nothing is left but to fold them, or to remove the parts of that
    left: dict[str, int]  # samples of a shard that are in no committed unit, by its id
    total: int  # samples

    @property
    def done(self) -> int:
        """Samples that are committed."""
        return self.total - sum(self.left.values())


def look_for_rest(run: Run, config: BootstrapConfig, shards: Sequence[Shard]) -> Rest:
    """Return what is left of some shards of a run, which may be one that is not there yet."""
    complete, begun = complete_shards(run), set(storage.list_folders(run.ledger))
    known = quarantined_shards(run)
    rest = Rest([], [], {}, sum(shard.samples for shard in shards))
    for shard in shards:
        units = []
        if shard.id not in complete:
            held = quarantined(run, shard) if shard.id in known else ()
            units = cut_units(shard, config, committed_units(run, shard) if shard.id in begun else (), held)
        rest.units.extend(units)
        rest.left[shard.id] = sum(unit.hi - unit.lo for unit in units)
        if not units and shard.id in begun:
            rest.ready.append(shard)
    return rest
