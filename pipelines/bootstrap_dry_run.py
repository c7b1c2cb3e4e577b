"""The dry run of a bootstrap: what is left to do, whether everything that it needs is there, and where its files go.

It calls what the job calls before it writes: each check is made in one place.
"""

from collections.abc import Callable
from operator import length_hint

from capfilt import storage
from capfilt.config import BootstrapConfig, ExportConfig
from capfilt.display import counted, in_bytes, listed
from capfilt.dry_run import DryRun
from capfilt.forecast.survey import Survey, survey
from capfilt.hardware import require_device, require_gpus
from capfilt.ledger.quarantine import quarantined_shards
from capfilt.planning import passed_over, remedy, tell_passed_over
from capfilt.runs import Run, begun_with, find_run
from capfilt.runs.lease import require_free
from capfilt.shards import find_shards
from capfilt.units import unit_size
from pipelines.bootstrap import ONE_FOR_BOTH
from pipelines.resolving import as_begun
from workers.room import find_room

LEDGER_BYTES = 2000  # of a sample and a few texts, at most; metadata of many kilobytes are rare
LISTED = 10  # shards that are named, of those that cannot be used and of those that are done anew

Hashes = Callable[[BootstrapConfig], dict[str, str]]


def dry_run(
    config: BootstrapConfig,
    describe: Callable[[BootstrapConfig], list[str]],
    hashes: Hashes,
    *,
    local: bool = False,
    force: bool = False,
    retry_quarantined: bool = False,
) -> DryRun:
    """Return what run would do with the same arguments, and what prevents it. Nothing is written.

    Args:
        config: the job.
        describe: says what the checkpoints are, and raises an error if one does not fit its role.
        hashes: of the checkpoints; called only if a run exists that is tied to them.
        local: as in run.
        force: as in run.
        retry_quarantined: as in run.
    """
    dry = DryRun("bootstrap")
    with dry.examine():
        for line in describe(config):
            dry.tell("model", line)
    if storage.absolute(config.captioner) == storage.absolute(config.filter):  # their hashes would need all of a file
        dry.tell("warning", ONE_FOR_BOTH)
    with dry.examine():
        if local:
            require_device(config.device.kind, "set device.kind: cpu")
        else:
            require_gpus(config.device.kind, config.cluster.gpus_per_worker)
        dry.tell("workers", "in this process" if local else find_room(config.cluster))
    with dry.examine():
        if not force:
            require_free(storage.absolute(config.run), forcible=True)
    with dry.examine():
        folder, found = look(config, hashes)
        _tell(dry, config, folder, found)
        if retry_quarantined:
            dry.tell("done anew", f"{counted(len(quarantined_shards(folder)), 'shard')} with quarantined samples")
    return dry


def look(config: BootstrapConfig, hashes: Hashes, *, whole: bool = False) -> tuple[Run, Survey]:
    """Return the run that a job would make or go on with, and what is known of its shards. Nothing is written.

    Args:
        config: the job.
        hashes: of the checkpoints; of a new run nothing is tied to them.
        whole: look at all shards of a new run, however many they are.

    Raises:
        ConfigError: an input matches nothing.
        RunError: the folder belongs to other settings or other inputs.
    """
    found = find_shards(config.input)
    config = as_begun(config)
    folder = find_run(config, hashes(config) if begun_with(config.run) else {}, found)
    if not config.batch_size:  # units are cut at whole batches, and those of a new run are not known yet
        config = config.model_copy(update={"batch_size": 1})
    return folder, survey(folder, config, found, whole=whole)


def _tell(dry: DryRun, config: BootstrapConfig, folder: Run, found: Survey) -> None:
    """Add what is left of a run, and where it goes."""
    rest, left = found.rest, found.samples_left.likely
    dry.tell("input", f"{found}, {in_bytes(found.bytes.likely)}")
    if others := passed_over(found.shards):
        dry.tell("passed over", tell_passed_over(others))
    if folder.has_plan():
        dry.tell("run", f"goes on; {rest.done:,} of {rest.total:,} samples are done")
    else:
        dry.tell("run", "a new one")
    for problem in list(rest.broken.values())[:LISTED]:
        dry.tell("done anew", f"the shard of {problem}")
    if not as_begun(config).batch_size:
        dry.tell("batches", "their size is found by a trial when the run begins")
    units = counted(length_hint(rest), "unit") if found.whole else "units"
    dry.tell("does", f"{counted(round(left), 'sample')} in {units} of up to {unit_size(config):,}")
    ledger, clean = left * LEDGER_BYTES, found.most_clean(config.sampling.captions) if config.export else 0.0
    # the ledger's own folder is named by what a new run is tied to only when it begins
    place = folder.ledger if begun_with(config.run) else storage.join(folder.root, "ledger")
    dry.tell("ledger", f"{place}, up to {in_bytes(ledger)}")
    if config.export:
        place = folder.clean(ExportConfig(run=config.run, policy=config.policy))
        dry.tell("clean", f"{place}, up to {in_bytes(clean)}")
    dry.writes(folder.root, ledger + clean)
    refused = [remedy(shard) for shard in found.left_out] if config.damage == "fail" else []
    for problem in listed(refused, LISTED, "{:,} more that cannot be used; capfilt scan lists all"):
        dry.refuse(problem)
