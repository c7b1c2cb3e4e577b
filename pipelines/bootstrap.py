"""The bootstrap job: plan the shards, run the units that are left, complete the shards, and export them."""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from functools import partial

from capfilt import storage
from capfilt.bootstrap import CapFilt
from capfilt.commits import read_commit
from capfilt.config import BootstrapConfig, Cluster, ExportConfig
from capfilt.errors import FailedUnitsError, RunError, ShardError
from capfilt.ledger import committed_units, complete_shards, fold, is_complete
from capfilt.med.inference import settle
from capfilt.planning import plan_shards, unusable
from capfilt.progress import Progress, Tally
from capfilt.records import Shard, Unit, UnitResult
from capfilt.runs import Run, begun_on, open_run
from capfilt.shards import find_shards
from capfilt.units import check_failures, cut_units, parse_name
from pipelines.export import export_shards, finish
from workers.bootstrap_worker import BootstrapWorker
from workers.local import run_local
from workers.pool import run_units, session

Results = Generator[UnitResult, None, None]


def run(
    config: BootstrapConfig, build: Callable[[BootstrapConfig], CapFilt], names: dict[str, str], local: bool = False
) -> str:
    """Bootstrap what is left of a run, and return what it came to in a line.

    Args:
        config: the job.
        build: loads the models, in the process that uses them.
        names: hashes of the checkpoints, {"captioner": ..., "filter": ...}; they tie the run to its models.
        local: in this process, without Ray; the results are the same.

    Raises:
        CapfiltError: nothing can be done: settings, inputs or models are at fault.
        FailedUnitsError: units or shards failed; all others are committed, and exported if asked for.
    """
    found = find_shards(config.input)  # first, so that a slip in the inputs leaves no run behind
    config = config.model_copy(update={"device": settle(config.device, begun_on(config.run))})
    folder = open_run(config, names)
    shards = plan_shards(folder, found)
    left_out = [shard for shard in shards if unusable(shard, config)]
    failed = [_remedy(shard) for shard in left_out] if config.damage == "fail" else []
    usable = [shard for shard in shards if shard not in left_out]
    job = _Job(folder, config, usable)
    folder.note("start", units=len(job.units), left_out=[shard.url for shard in left_out])
    # An actor may run in another folder than this process.
    checkpoints = {"captioner": storage.absolute(config.captioner), "filter": storage.absolute(config.filter)}
    make = partial(BootstrapWorker, build, config.model_copy(update=checkpoints), folder)
    settings = ExportConfig(run=config.run, policy=config.policy)
    with nullcontext() if local else session(config.cluster):
        failed += job.collect(run_local(make, job.units) if local else run_units(make, job.units, config.cluster))
        if config.export:
            complete = complete_shards(folder)
            ready = [shard for shard in usable if shard.id in complete]
            failed += export_shards(folder, ready, settings, _for_export(config.cluster, local))
    summary = f"{len(shards)} shards, {len(left_out)} left out, {job.done} samples done before; {job.tally}"
    if config.export and not failed:
        summary += "\n" + finish(folder, usable, settings)
    folder.note("end", summary=summary, failed=failed)
    if failed:
        raise FailedUnitsError(failed, summary)
    return summary


class _Job:
    """The units that are left of a run, by shard; a shard is folded when its last one is in."""

    def __init__(self, folder: Run, config: BootstrapConfig, shards: Sequence[Shard]) -> None:
        self.folder, self.config, self.tally = folder, config, Tally()
        complete, begun = complete_shards(folder), set(storage.list_folders(folder.ledger))
        self.total = sum(shard.samples for shard in shards)
        self.units: list[Unit] = []
        self.left: dict[str, int] = {}  # units of a shard, by its id
        self.ready: list[Shard] = []  # nothing is left but to fold them, or to remove the parts of that
        for shard in shards:
            units = []
            if shard.id not in complete:
                units = cut_units(shard, config, committed_units(folder, shard) if shard.id in begun else ())
            self.units += units
            self.left[shard.id] = len(units)
            if not units and shard.id in begun:
                self.ready.append(shard)
        self.done = self.total - sum(unit.hi - unit.lo for unit in self.units)

    def collect(self, results: Results) -> list[str]:
        """Take all results in, and return what failed."""
        failed = [reason for shard in self.ready for reason in self._complete(shard)]
        with closing(results), Progress(self.total, self.done) as progress:
            try:
                for result in results:
                    self.tally.add(result)
                    progress.add(result.unit.hi - result.unit.lo, self.tally.shares)
                    shard = result.unit.shard
                    self.left[shard.id] -= 1
                    if not self.left[shard.id]:
                        failed += self._complete(shard)
            except FailedUnitsError as error:
                failed += error.failed
        return failed

    def _complete(self, shard: Shard) -> list[str]:
        """Fold a shard of which all units are committed; return why not, if it cannot be."""
        units = [Unit(shard, *parse_name(name)) for name in committed_units(self.folder, shard)]
        statuses: Counter[str] = Counter()
        try:
            for unit in units if not is_complete(self.folder, shard) else ():
                statuses.update(read_commit(storage.join(self.folder.parts(shard), f"{unit.name}.json")).statuses)
            check_failures(shard, statuses, self.config)
            fold(self.folder, shard, units)
        except (ShardError, RunError, OSError) as error:
            return [str(error)]
        return []


def _for_export(cluster: Cluster, local: bool) -> Cluster:
    """Return the same workers without their GPUs, or one in this process."""
    cpus = min(1.0, cluster.cpus_per_worker)  # what a private cluster has
    return Cluster() if local else cluster.model_copy(update={"gpus_per_worker": 0.0, "cpus_per_worker": cpus})


def _remedy(shard: Shard) -> str:
    return f"{shard.url}: {shard.damage}; fetch it again, or set damage: keep-readable or skip-shard"
