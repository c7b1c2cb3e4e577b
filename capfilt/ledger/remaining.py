"""What is left of a run: found by one listing of its ledger when it starts, and cut into units on demand.

A complete shard that lacks a table in the listing counts as not begun.

Only the shards, and the units of shards in work, are in memory: a run of a billion samples has a million units.
"""

from collections.abc import Iterator, Sequence

from capfilt import storage
from capfilt.background import map_in_threads
from capfilt.config import BootstrapConfig
from capfilt.ledger.broken import broken_shards
from capfilt.ledger.quarantine import quarantined, quarantined_shards
from capfilt.ledger.tables import committed_units, recorded
from capfilt.records import Shard, Unit
from capfilt.runs import Run
from capfilt.units import cut_units, gaps, unit_step


class Remaining:
    """The shards of a run, and which of their samples are not committed.

    Attributes:
        total: number of samples in the shards.
        done: how many of them were committed when the run was started.
        broken: by id, what is wrong with complete shards that are not whole; they count as not begun.
        ready: shards that only have to be folded, or whose parts are left from a fold and have to be removed.
    """

    def __init__(self, run: Run, config: BootstrapConfig, shards: Sequence[Shard]) -> None:
        self._run, self._config, self._shards = run, config, shards
        files, folders = storage.list_entries(run.ledger)
        complete = recorded(files)
        self.broken = broken_shards(run, [shard.id for shard in shards if shard.id in complete], frozenset(files))
        complete -= self.broken.keys()
        begun = set(folders) - self.broken.keys()
        in_work = [shard for shard in shards if shard.id in begun and shard.id not in complete]
        committed = map_in_threads(lambda shard: committed_units(run, shard), in_work)
        self._gaps = {shard.id: [] if shard.id in complete else gaps(shard) for shard in shards}
        self._gaps |= {shard.id: gaps(shard, names) for shard, names in zip(in_work, committed, strict=True)}
        self._with_held = quarantined_shards(run)
        self._left: dict[str, int] = {}  # samples of the shards in work, by id
        self.total = sum(shard.samples for shard in shards)
        self._open = sum(map(self.uncommitted, shards))  # samples that have not been counted
        self.done = self.total - self._open
        self.ready = [shard for shard in shards if shard.id in begun and not self._gaps[shard.id]]

    def __iter__(self) -> Iterator[Unit]:
        """Yield the units that are left, shard by shard, in the order of the plan."""
        for shard in self._shards:
            left = self._gaps[shard.id]
            if left:
                self._left[shard.id] = self.uncommitted(shard)
                held = quarantined(self._run, shard) if shard.id in self._with_held else ()
                yield from cut_units(shard, self._config, left, held)

    def __length_hint__(self) -> int:
        """Return how many units were left when the run was started."""
        step = unit_step(self._config)
        return sum(len(gap[::step]) or 1 for left in self._gaps.values() for gap in left)

    def count(self, unit: Unit) -> bool:
        """Count a unit, or a piece of one, as committed; return whether it was the last of its shard."""
        self._left[unit.shard.id] -= unit.hi - unit.lo
        self._open -= unit.hi - unit.lo
        if self._left[unit.shard.id]:
            return False
        del self._left[unit.shard.id]
        return True

    @property
    def unfinished(self) -> bool:
        """Whether samples are left that have not been counted."""
        return self._open > 0

    def uncommitted(self, shard: Shard) -> int:
        """Return how many samples of a shard were left when the run was started; 0 for one that is not among them."""
        return sum(map(len, self._gaps.get(shard.id, ())))
