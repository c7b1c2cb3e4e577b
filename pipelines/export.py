"""The export job: write the clean shards of a run under a policy, and the manifest when all are there."""

from collections.abc import Sequence
from contextlib import closing
from functools import partial

from capfilt import storage
from capfilt.config import BootstrapConfig, Cluster, ExportConfig
from capfilt.display import counted, listed
from capfilt.dry_run import DryRun
from capfilt.errors import FailedUnitsError, StoppedError
from capfilt.export import finish_export, finished_shards
from capfilt.forecast.sizes import bytes_held, bytes_of_listed, most_clean
from capfilt.ledger import complete_shards
from capfilt.planning import remedy, unusable
from capfilt.progress import Progress
from capfilt.records import Shard, Unit
from capfilt.runs import Run, load_run
from capfilt.runs.lease import is_free, require_free, swept
from capfilt.runs.stop import Stop
from capfilt.shards import open_shard
from capfilt.signals import stop_on_interrupt
from workers.driving import driving
from workers.export_worker import ExportWorker
from workers.local import run_local
from workers.pool import run_units

LISTED = 10  # shards without a complete ledger that a dry run names


def run(config: ExportConfig) -> str:
    """Export what is left of a run, and return what is there in a line.

    Raises:
        RunError: the folder is no run, or another export under the same policy is at work, or has taken its lease.
        FailedUnitsError: shards failed, or their ledger is not complete; all others are exported.
        StoppedError: it was asked to stop, by a request or by Ctrl-C; the shards in hand are exported.
    """
    folder = load_run(config.run)
    shards, ready, failed = _ready(folder)
    clean, meaning = folder.clean(config), "the shards in hand finish, and no other begins"
    with (
        driving(folder.exporting(config), meaning) as (lease, stop),
        stop_on_interrupt(stop.ask),
        swept(lease, partial(_sweep, folder, clean)),
    ):
        failed += export_shards(folder, ready, config, Cluster(workers=config.workers, address=config.address), stop)
    if stop.asked and (left := {shard.id for shard in ready} - finished_shards(clean)):
        raise StoppedError(f"{len(ready) - len(left)} of {len(shards)} shards in {clean}", failed)
    if failed:
        summary = f"{len(shards) - len(failed)} of {len(shards)} shards in {clean}"
        if len(ready) == len(shards):
            raise FailedUnitsError(failed, summary)
        raise FailedUnitsError(failed, summary, "bootstrap again, and then export again")
    return finish(folder, shards, config)


def dry_run(config: ExportConfig) -> DryRun:
    """Return what run would do, and what prevents it. Nothing is written."""
    dry = DryRun("export")
    with dry.examine():
        folder = load_run(config.run)
        require_free(folder.exporting(config))
        shards, ready, failed = _ready(folder)
        finished = finished_shards(folder.clean(config))
        left = [shard for shard in ready if shard.id not in finished]
        dry.tell("input", f"{counted(len(ready), 'complete shard')} of {len(shards):,} in {folder.root}")
        dry.tell("does", f"{counted(len(left), 'shard')}; {len(ready) - len(left):,} exported already")
        dry.writes(folder.clean(config), _most(folder, left))
        for reason in listed(failed, LISTED, "{:,} more without a complete ledger; bootstrap again"):
            dry.refuse(reason)
        for shard in left[:1]:
            dry.tell("images", f"come from {open_shard(shard.url).url} and so on")
    return dry


def _most(folder: Run, shards: Sequence[Shard]) -> float:
    """Return the most bytes of the clean shards of some shards of a run."""
    config = folder.config()
    listed = bytes_of_listed(shards, config.seed)
    held = sum(bytes_held(shard, listed) for shard in shards)
    return most_clean(held, sum(shard.samples for shard in shards), config.sampling.captions)


def _sweep(folder: Run, clean: str) -> None:
    """Remove the files in the making that dead workers left, unless a bootstrap may be at its own export there."""
    if is_free(folder.root):
        storage.sweep(clean)


def _ready(folder: Run) -> tuple[list[Shard], list[Shard], list[str]]:
    """Return the shards of a run that are to be exported, those of them that can be, and why the others cannot.

    Damaged shards are done without only where the run says so.
    """
    config = folder.config()
    shards = [shard for shard in folder.plan() if config.damage == "fail" or not unusable(shard, config)]
    complete = complete_shards(folder)
    ready = [shard for shard in shards if shard.id in complete]
    missing = [shard for shard in shards if shard.id not in complete]
    return shards, ready, [_why_missing(shard, config) for shard in missing]


def _why_missing(shard: Shard, config: BootstrapConfig) -> str:
    if unusable(shard, config):
        return remedy(shard)
    return f"{shard.url}: its ledger is not complete; bootstrap again"


def export_shards(
    folder: Run, shards: Sequence[Shard], config: ExportConfig, cluster: Cluster, stop: Stop | None = None
) -> list[str]:
    """Export complete shards, but for those that are exported already; return what failed. One worker needs no Ray."""
    finished = finished_shards(folder.clean(config))
    samples = {shard.id: shard.samples for shard in shards if shard.id not in finished}
    units = (Unit(shard, 0, shard.samples) for shard in shards if shard.id in samples)
    total = sum(shard.samples for shard in shards)
    make = partial(ExportWorker, folder, config)
    results = run_local(make, units, stop=stop) if cluster.workers == 1 else run_units(make, units, cluster, stop=stop)
    with closing(results), Progress(total, total - sum(samples.values())) as progress:
        try:
            for exported in results:
                progress.add(samples[exported.shard], "exported")
        except FailedUnitsError as error:
            return error.failed
    return []


def finish(folder: Run, shards: Sequence[Shard], config: ExportConfig) -> str:
    """Write the manifest of an export whose shards are all there, and return what it holds in a line."""
    exported = finish_export(folder, shards, config)
    samples, texts = sum(stats.samples for stats in exported), sum(stats.texts for stats in exported)
    holds = f"{counted(len(exported), 'clean shard')} with {counted(samples, 'sample')}"
    return f"{holds} and {counted(texts, 'text')} in {folder.clean(config)}"
