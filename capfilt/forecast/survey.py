"""The shards of a job before it begins: all of them, or a random sample if looking at all of them would take long."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from capfilt.config import BootstrapConfig
from capfilt.display import counted
from capfilt.forecast.estimates import Estimate, total
from capfilt.forecast.sizes import bytes_held, bytes_of_listed, most_clean
from capfilt.ledger.remaining import Remaining
from capfilt.planning import planned_shards, shards_at, unusable
from capfilt.records import Shard
from capfilt.runs import Run
from capfilt.storage import absolute

SURVEYED = 256  # shards; an index is a request or many, and their mean differs little


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a job's shards."""

    files: int  # that its inputs mean, or meant when it was planned
    shards: list[Shard]  # that were looked at
    left_out: list[Shard]  # those of them that a bootstrap does not take as they are
    rest: Remaining  # of the others
    listed: float  # bytes of a sample of a list, its image included

    @property
    def whole(self) -> bool:
        """Whether all shards were looked at."""
        return len(self.shards) == self.files

    @property
    def samples(self) -> Estimate:
        """Samples of all shards."""
        return self._total(lambda shard: shard.samples)

    @property
    def bytes(self) -> Estimate:
        """Size of all shards, lists with their images."""
        return self._total(self._held)

    @property
    def samples_left(self) -> Estimate:
        """Samples that a bootstrap would still take."""
        return self._total(self.rest.uncommitted)

    @property
    def bytes_left(self) -> Estimate:
        """Size of what a bootstrap would still take."""
        return self._total(lambda shard: self._held(shard) * self.rest.uncommitted(shard) / max(1, shard.samples))

    @property
    def shards_left(self) -> Estimate:
        """Shards with samples that a bootstrap would still take."""
        return self._total(lambda shard: float(self.rest.uncommitted(shard) > 0))

    def most_clean(self, captions: int) -> float:
        """Return the most bytes of the clean shards of what is left, given the captions of an image."""
        return most_clean(self.bytes_left.high, self.samples_left.high, captions)

    def _held(self, shard: Shard) -> float:
        return bytes_held(shard, self.listed)

    def _total(self, figure: Callable[[Shard], float]) -> Estimate:
        return total([figure(shard) for shard in self.shards], self.files)

    def __str__(self) -> str:
        out = f"; {len(self.left_out)} of them cannot be used" if self.left_out else ""
        if self.whole:
            return f"{counted(self.files, 'shard')}, {counted(round(self.samples.likely), 'sample')}{out}"
        return f"{self.files:,} shards, about {self.samples.likely:,.0f} samples by {len(self.shards)} of them{out}"


def survey(run: Run, config: BootstrapConfig, found: Sequence[str], *, whole: bool = False) -> Survey:
    """Look at the shards of a run, which may be one that is not there yet. Nothing is written.

    Args:
        run: the run; what it has committed is not left to do.
        config: the job.
        found: the files that its inputs mean today.
        whole: look at all, however many they are. Those of a run that is planned are all known.

    Raises:
        RunError: files went since the run was planned. Those that came are left out, and a warning names them.
    """
    urls = [absolute(url) for url in found]
    planned = run.plan() if run.has_plan() else []
    if planned:
        shards = planned_shards(run, planned, urls)
    else:
        few = whole or len(urls) <= SURVEYED
        shards = shards_at(urls if few else sorted(random.Random(config.seed).sample(urls, SURVEYED)))
    usable = [shard for shard in shards if not unusable(shard, config)]
    left_out = [shard for shard in shards if unusable(shard, config)]
    rest, listed = Remaining(run, config, usable), bytes_of_listed(usable, config.seed)
    return Survey(len(planned) or len(urls), shards, left_out, rest, listed)
