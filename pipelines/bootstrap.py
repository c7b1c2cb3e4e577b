"""The bootstrap job: plan the shards, run the units that are left, complete the shards, and export them."""

import logging
import shlex
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from functools import partial

from capfilt import storage
from capfilt.bootstrap import Build
from capfilt.config import BootstrapConfig, Cluster, ExportConfig
from capfilt.display import counted
from capfilt.errors import FailedUnitsError, RunError, ShardError, StoppedError
from capfilt.export import finished_shards
from capfilt.ledger import complete_shards
from capfilt.ledger.broken import forget_broken
from capfilt.ledger.completion import complete_shard
from capfilt.ledger.quarantine import quarantined_shards, release
from capfilt.ledger.remaining import Remaining
from capfilt.logs import everywhere
from capfilt.planning import plan_shards, remedy, unusable, warn_of_damage
from capfilt.progress import Progress
from capfilt.records import Shard, UnitResult
from capfilt.runs import Run, forgotten_unless_begun, start_run
from capfilt.runs.lease import Lease, is_free, swept
from capfilt.runs.status import Board, keep_status
from capfilt.runs.stop import Stop
from capfilt.shards import find_shards
from capfilt.signals import stop_on_interrupt
from pipelines.export import export_shards, finish
from pipelines.follow import Follower
from pipelines.indexing import index_shards
from pipelines.resolving import placed, resolved
from workers.bootstrap_worker import BootstrapWorker
from workers.decoder import start_decoders
from workers.driving import driving
from workers.isolation import Isolation
from workers.local import run_local
from workers.metrics import Metered, Metrics
from workers.pool import run_units
from workers.session import session

Results = Generator[UnitResult, None, None]

ONE_FOR_BOTH = (
    "captioner and filter are the same checkpoint, and a filter that shares the captioner's weights lets its wrong "
    "captions pass (BLIP, table 4: 8 % rejected instead of 25 %); fine-tune one for each"
)

logger = logging.getLogger(__name__)


def run(
    config: BootstrapConfig,
    build: Build,
    hashes: dict[str, str],
    stop: Stop | None = None,
    /,
    *,
    local: bool = False,
    force: bool = False,
    retry_quarantined: bool = False,
) -> str:
    """Bootstrap what is left of a run, and return a summary of a few lines.

    Args:
        config: the job.
        build: loads the models, in the process that uses them.
        hashes: of the checkpoints, {"captioner": ..., "filter": ...}; they tie the run to its models.
        stop: set by a request to stop, also by one that comes when nothing is left to stop.
        local: in this process, without Ray; the results are the same.
        force: even if another driver seems to be at work on the run.
        retry_quarantined: redo shards with quarantined samples, these included.

    Raises:
        CapfiltError: nothing can be done: settings, inputs or models are at fault, or another driver is at work.
        PlanningError, OSError: shards could not be looked at, by workers or by this process, and nothing was begun.
        FailedUnitsError: units or shards failed; all others are committed, and exported if asked for.
        StoppedError: it was asked to stop, by a request in the run folder or by Ctrl-C; what was in hand is committed.
    """
    found = find_shards(config.input)  # first, so that a slip in the inputs leaves no run folder
    root = storage.absolute(config.run)
    with everywhere(run=root), driving(root, stop=stop, force=force) as (lease, stop), stop_on_interrupt(stop.ask):
        config = resolved(config, build, local, stop)
        folder = start_run(config, hashes, found)
        settings = ExportConfig(run=config.run, policy=config.policy)
        with (
            keep_status(folder.root, lambda: lease.is_held) as board,
            nullcontext() if force else swept(lease, partial(_sweep, folder, settings if config.export else None)),
            nullcontext() if force else forgotten_unless_begun(folder, lease),  # once no worker is left to commit
            nullcontext() if local else session(config.cluster),
        ):
            workers = None if local else _without_gpus(config.cluster)
            shards = plan_shards(folder, found, partial(index_shards, workers, stop))
            if retry_quarantined:
                _release(folder, shards)
            job = _Job(folder, config, shards, lease, stop, board)
            failed = job.begin() + job.bootstrap(build, hashes, local)
            failed += job.export(settings, local) if config.export and not job.stopped else []
            return job.end(settings, failed)


def _sweep(folder: Run, settings: ExportConfig | None) -> None:
    """Remove the files in the making where this job alone writes.

    Exports sweep their clean folders themselves. So only the folder of this job's own export is swept, if it has one,
    and only while no other export is at work in it.
    """
    for path in ("plan", "ledger", "quarantine"):
        storage.sweep(storage.join(folder.root, path))
    if settings is not None and is_free(folder.exporting(settings)):
        storage.sweep(folder.clean(settings))


def _release(folder: Run, shards: Sequence[Shard]) -> None:
    ids = quarantined_shards(folder)
    for shard in shards:
        if shard.id in ids:
            release(folder, shard)


class _Job:
    """A run in progress: what is left of it, and how far it is."""

    def __init__(
        self, folder: Run, config: BootstrapConfig, shards: Sequence[Shard], lease: Lease, stop: Stop, board: Board
    ) -> None:
        self.folder, self.config, self.follower = folder, config, Follower(folder, board)
        self.lease, self.stop, self.board = lease, stop, board
        self.left_out = [shard for shard in shards if unusable(shard, config)]
        self.shards = [shard for shard in shards if not unusable(shard, config)]
        self.in_part = [shard for shard in self.shards if shard.damage]
        self.stopped = False  # before all was done
        self.left = Remaining(folder, config, self.shards)

    def begin(self) -> list[str]:
        """Note the start, and return what is wrong with the shards that are left out, if the job fails by them.

        What is left of shards that lack a table is removed, so that they are done again.
        """
        warn_of_damage("left out", self.left_out)
        warn_of_damage("read in part", self.in_part)
        forget_broken(self.folder, self.left.broken)
        samples, left_out = self.left.total - self.left.done, [shard.url for shard in self.left_out]
        self.follower.journal.note("start", samples=samples, left_out=left_out)
        return [remedy(shard) for shard in self.left_out] if self.config.damage == "fail" else []

    def bootstrap(self, build: Build, hashes: dict[str, str], local: bool) -> list[str]:
        """Do the units, complete the shards, and return what failed."""
        return self._collect(self._results(build, local), one_for_both=hashes["captioner"] == hashes["filter"])

    def _results(self, build: Build, local: bool) -> Results:
        """Return what does the units, in this process or on Ray, and yields the result of each."""
        config, follower = self.config, self.follower
        start_reader = start_decoders if config.cluster.decode_cpus and not local else None
        make = partial(BootstrapWorker, build, placed(config), self.folder, start_reader)
        tries = 1 if local else config.cluster.attempts
        isolation = Isolation(config.batch_size, tries, config.max_quarantined, follower)
        if local:
            return run_local(make, self.left, isolation, self.stop, follower)
        follower.metrics = Metrics(self.folder.root, self.left.total, self.left.done)
        metered = partial(Metered, make, self.folder.root)
        return run_units(metered, self.left, config.cluster, isolation, self.stop, follower)

    def export(self, settings: ExportConfig, local: bool) -> list[str]:
        """Export the shards that are complete, and return what failed."""
        self.lease.check()
        self.board.set_phase("export")
        complete, clean = complete_shards(self.folder), self.folder.clean(settings)
        ready = [shard for shard in self.shards if shard.id in complete]
        workers = Cluster(workers=1) if local else _without_gpus(self.config.cluster)
        failed = export_shards(self.folder, ready, settings, workers, self.stop)
        self.stopped = self.stop.asked and bool({shard.id for shard in ready} - finished_shards(clean))
        return failed

    def end(self, settings: ExportConfig, failed: list[str]) -> str:
        """Note the end and return the summary; raise it where something failed or the job was stopped."""
        shards, done = counted(len(self.shards) + len(self.left_out), "shard"), counted(self.left.done, "sample")
        summary = f"{shards}, {len(self.left_out):,} left out, {done} done before; "
        summary += str(self.follower.tally)
        summary += f"\n{counted(len(self.in_part), 'damaged shard')} read in part" if self.in_part else ""
        if self.stopped:
            self.follower.journal.note("stop", summary=summary, failed=failed)
            raise StoppedError(summary, failed)
        if self.config.export and not failed:
            root = shlex.quote(self.folder.root)
            summary += "\n" + finish(self.folder, self.shards, settings)
            summary += f"\nnext: capfilt verify {root}, capfilt report {root}"
        self.follower.journal.note("end", summary=summary, failed=failed)
        if failed:
            raise FailedUnitsError(failed, summary)
        return summary

    def _collect(self, results: Results, *, one_for_both: bool) -> list[str]:
        """Take all results in, and return what failed."""
        left, tally = self.left, self.follower.tally
        failed = [reason for shard in left.ready for reason in self._complete(shard)]
        self.board.begin(left.total, left.done)
        progress = Progress(left.total, left.done, lambda: str(self.follower.state))
        with self.follower, closing(results), progress:
            try:
                for result in results:
                    self.lease.check()
                    if one_for_both and not tally.statuses:  # not before: a checkpoint that cannot is an error instead
                        logger.warning("%s", ONE_FOR_BOTH)
                    samples = result.unit.hi - result.unit.lo
                    self.follower.add(result)
                    progress.add(samples, tally.shares)
                    self.board.add(samples, tally)
                    if left.count(result.unit) and not result.completes:
                        failed += self._complete(result.unit.shard)
            except FailedUnitsError as error:
                failed += error.failed
        self.stopped = self.stop.asked and left.unfinished
        assert failed or self.stopped or not left.unfinished, "units were lost that did not fail"
        return failed

    def _complete(self, shard: Shard) -> list[str]:
        """Complete a shard whose units are all committed, and return why not, if it cannot be."""
        try:
            complete_shard(self.folder, shard, self.config)
        except (ShardError, RunError, OSError) as error:
            return [str(error)]
        return []


def _without_gpus(cluster: Cluster) -> Cluster:
    """Return the same workers without their GPUs, on any node."""
    cpus = min(1.0, cluster.cpus_per_worker)  # what a private cluster has
    return cluster.model_copy(update={"gpus_per_worker": 0.0, "cpus_per_worker": cpus, "labels": {}})
