"""The run folder: the paths of all files of a bootstrap run, and the settings that it is tied to.

    RUN/run.yaml                             settings and checkpoint hashes, written first
    RUN/plan/shards.parquet                  the shards, as they were when the run was planned
    RUN/plan/index/SHARD.index               where the members of a tar are, so that each unit reads only its own bytes
    RUN/journal.jsonl                        events, for people; on an object store files in RUN/journal/
    RUN/lease.json                           which driver is at work on the run, if any
    RUN/status.json                          how far the driver is; for people, never read for correctness
    RUN/stop.json                            a request to stop, for the driver that is at work
    RUN/ledger/MODELS/SHARD.json             commit record: the shard is complete; with SHARD.samples.parquet and
                                             SHARD.candidates.parquet
    RUN/ledger/MODELS/SHARD/LO-HI.*          the same for a unit, while its shard is in work
    RUN/quarantine/MODELS/SHARD/POSITION.json
                                             a sample that kills, hangs or breaks its worker, and how
    RUN/clean/POLICY-FINGERPRINT/            clean shards under one policy
    RUN/exports/POLICY-FINGERPRINT/          lease.json and stop.json of a running export

Paths contain fingerprints of what their files depend on, so files of other settings are never mistaken for these.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from capfilt import storage
from capfilt.config import BootstrapConfig, ExportConfig
from capfilt.display import CREDENTIALS, has_credentials, redact
from capfilt.errors import CheckpointError, ConfigError, RunError, WorkerError
from capfilt.records import Shard
from capfilt.runs.lease import Lease
from capfilt.runs.plans import read_plan, write_plan
from capfilt.runs.record import RunRecord, record_path
from capfilt.runs.selection import Selection
from capfilt.shards import find_shards
from capfilt.shards.find import canonical_urls

EXPORTS = "exports"
"""The folder in a run's that holds one folder for each export that runs or ran."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder: the paths of its files. It is small and can be sent to workers."""

    root: str
    models: str  # fingerprint of everything that decides what the models say

    @property
    def ledger(self) -> str:
        """The folder of the ledger."""
        return storage.join(self.root, "ledger", self.models)

    @property
    def quarantine(self) -> str:
        """The folder of the quarantine records."""
        return storage.join(self.root, "quarantine", self.models)

    @property
    def indexes(self) -> str:
        """The folder of the shards' indexes."""
        return storage.join(self.root, "plan", "index")

    def parts(self, shard: Shard) -> str:
        """Return the folder of a shard's units, while it is in work."""
        return storage.join(self.ledger, shard.id)

    def clean(self, config: ExportConfig) -> str:
        """Return the folder of the clean shards under a policy."""
        return storage.join(self.root, "clean", Selection.of(config).folder)

    def exporting(self, config: ExportConfig) -> str:
        """Return the folder of an export's lease and stop request: not the clean folder, which holds only shards."""
        return storage.join(self.root, EXPORTS, Selection.of(config).folder)

    def config(self) -> BootstrapConfig:
        """Return the settings with which the run was last started."""
        return RunRecord.read(self.root).config

    def has_plan(self) -> bool:
        """Return whether the run is planned."""
        return storage.exists(self._plan)

    def write_plan(self, shards: Sequence[Shard]) -> None:
        """Fix the shards of the run."""
        write_plan(self._plan, shards)

    def plan(self) -> list[Shard]:
        """Return the shards of the run, in the order in which they were planned."""
        if not self.has_plan():
            raise RunError(f"{self.root}: the run has no plan yet; start it with capfilt bootstrap")
        return read_plan(self._plan)

    @property
    def _plan(self) -> str:
        return storage.join(self.root, "plan", "shards.parquet")


def start_run(config: BootstrapConfig, hashes: dict[str, str], found: Sequence[str] | None = None) -> Run:
    """Make a run folder, or resume one that was made with the same settings.

    `input` may be worded differently, but must mean the same shards, since the plan is fixed. `damage` and
    `max_failed_share` decide which shards are accepted, and may only be loosened: then all that was accepted before
    still is, and the result is the same as with the looser settings from the start.

    Args:
        config: the job.
        hashes: of the checkpoints, {"captioner": ..., "filter": ...}.
        found: the shards that `input` names, if they were looked for already: to list 100,000 takes a store a while.

    Raises:
        RunError: the folder belongs to other settings, which the message lists, or to a training.
    """
    run = find_run(config, hashes, found)
    record = RunRecord.of(config, hashes).model_copy(update={"models": run.models})
    record.publish(run.root)
    return run


@contextmanager
def forgotten_unless_begun(run: Run, lease: Lease) -> Iterator[None]:
    """Remove the settings and the plan of a run if the block fails because of them before anything is committed.

    Otherwise run.yaml would refuse the corrected settings that the error asks for. The indexes of the shards stay, and
    so does everything of a run that another driver has taken.
    """
    try:
        yield
    except (ConfigError, CheckpointError, WorkerError):
        try:
            if not any(any(storage.list_entries(place)) for place in (run.ledger, run.quarantine)) and lease.is_held:
                storage.remove(run._plan)
                storage.remove(record_path(run.root))
        except OSError as error:  # must not hide the error that ends the job
            logger.warning("the settings of the run were not removed: %s", error)
        raise


def find_run(config: BootstrapConfig, hashes: dict[str, str], found: Sequence[str] | None = None) -> Run:
    """Return the run that start_run would make or resume, and write nothing. Arguments and errors are the same."""
    root, new = storage.absolute(config.run), RunRecord.of(config, hashes)
    if storage.exists(record_path(root)):
        stored = RunRecord.read(root)
        differences = list(stored.differences(new))
        if stored.config.input != config.input and not _means_plan(Run(root, stored.models), config.input, found):
            differences.append(f"input: {stored.config.input!r} in the run, {config.input!r} here")
        if differences:
            raise RunError(
                f"{config.run}: this folder holds a run of other settings; put them back, or start another run "
                f"with run: ANOTHER_FOLDER\n  " + "\n  ".join(differences)
            )
        return Run(root, stored.models)  # not new.models: settings that were added since change it
    if _holds_training(root):
        raise RunError(f"{config.run}: holds a training; start the run in another folder with run: ANOTHER_FOLDER")
    return Run(root, new.models)


def begun_with(root: str) -> BootstrapConfig | None:
    """Return the settings with which a run was last started; None if there is no run yet."""
    root = storage.absolute(root)
    return RunRecord.read(root).config if storage.exists(record_path(root)) else None


def load_run(root: str) -> Run:
    """Return an existing run.

    Raises:
        RunError: the folder is not a run, or its URL contains credentials.
    """
    if has_credentials(root):
        raise RunError(f"{redact(root)}: {CREDENTIALS}")
    root = storage.absolute(root)
    return Run(root, RunRecord.read(root).models)


def _holds_training(folder: str) -> bool:
    """Return whether a training has its output in a folder."""
    files, folders = storage.list_entries(folder)
    return "config.yaml" in files and not {"states", "checkpoint"}.isdisjoint(folders)


def _means_plan(run: Run, inputs: Sequence[str], found: Sequence[str] | None) -> bool:
    """Return whether inputs mean the shards that a run was planned with, and no others."""
    if not run.has_plan():
        return False
    planned = canonical_urls([shard.url for shard in run.plan()])
    return set(planned) == set(canonical_urls(find_shards(inputs) if found is None else found))
