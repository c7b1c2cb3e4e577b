"""The run folder: where all files of a bootstrap run lie, and the settings that it is tied to.

    RUN/run.yaml                             settings and checkpoint hashes, written first
    RUN/plan/shards.parquet                  the shards, as they were when the run was planned
    RUN/plan/index/SHARD.index               where the members of a tar are, so that each unit reads only its own bytes
    RUN/journal.jsonl                        events, for people; on an object store files in RUN/journal/
    RUN/lease.json                           which driver is at work on the run, if any
    RUN/status.json                          how far the driver is; for people, never read for correctness
    RUN/stop.json                            a request to stop, for the driver that is at work
    RUN/ledger/MODELS/SHARD.json             commit record: the shard is complete; SHARD.samples.parquet and
                                             SHARD.candidates.parquet beside it
    RUN/ledger/MODELS/SHARD/LO-HI.*          the same for a unit, while its shard is in work
    RUN/quarantine/MODELS/SHARD/POSITION.json
                                             a sample that kills, hangs or breaks its worker, and how
    RUN/clean/POLICY-FINGERPRINT/            clean shards under one policy
    RUN/exports/POLICY-FINGERPRINT/          lease.json and stop.json of a running export

Paths contain fingerprints of what their files depend on, so files of other settings are never mistaken for these.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from capfilt import storage
from capfilt.config import BootstrapConfig, Config, ExportConfig, dump, loads
from capfilt.config.bootstrap import RESULTS
from capfilt.display import CREDENTIALS, has_credentials, redact
from capfilt.errors import CheckpointError, ConfigError, RunError, WorkerError
from capfilt.fingerprint import fingerprint
from capfilt.records import Shard
from capfilt.runs.lease import require_folder
from capfilt.runs.plans import read_plan, write_plan
from capfilt.runs.selection import Selection
from capfilt.shards import find_shards
from capfilt.shards.find import canonical_urls

CODE = "12"
"""Version of the code that decides what the models say; raised when equal settings would give other results."""

EXPORTS = "exports"
"""The folder in a run's that holds one folder for each export that runs or ran."""

VERSION = "version of capfilt's results"  # what messages call CODE

_SHOWN = 3  # runs that a message lists when a folder is not a run but contains some
_DAMAGE = ("fail", "skip-shard", "keep-readable")  # each accepts all that the ones before it accept


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder: where its files lie. It is small and can be sent to workers."""

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
        return _read_record(_record_of(self.root)).config

    def is_record_as_written(self) -> bool:
        """Return whether run.yaml is as it was written. An earlier version wrote no seal, which is taken for yes."""
        seal, _, text = storage.read_bytes(_record_of(self.root)).decode().partition("\n")
        return not seal.startswith("#") or seal == _seal(text)

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


class RunRecord(Config):
    """The content of run.yaml."""

    models: str
    code: str
    checkpoints: dict[str, str]
    config: BootstrapConfig


def start_run(config: BootstrapConfig, hashes: dict[str, str]) -> Run:
    """Make a run folder, or resume one that was made with the same settings.

    `input` may be worded differently, but must mean the same shards, since the plan is fixed. `damage` and
    `max_failed_share` decide which shards are accepted, and may only be loosened: then all that was accepted before
    still is, and the result is the same as with the looser settings from the start.

    Args:
        config: the job.
        hashes: of the checkpoints, {"captioner": ..., "filter": ...}.

    Raises:
        RunError: the folder belongs to other settings, which the message lists, or to a training.
    """
    run = find_run(config, hashes)
    record = RunRecord(models=run.models, code=CODE, checkpoints=hashes, config=config)
    text = dump(record)
    storage.publish(_record_of(run.root), f"{_seal(text)}\n{text}".encode())
    return run


@contextmanager
def forgotten_unless_begun(run: Run) -> Iterator[None]:
    """Let a run of which nothing is committed be begun with other settings, if these keep a block from its work.

    Its record would refuse the very settings that the error asks for. What is known of its shards stays.
    """
    try:
        yield
    except (ConfigError, CheckpointError, WorkerError):
        if not any(storage.list_files(place) or storage.list_folders(place) for place in (run.ledger, run.quarantine)):
            storage.remove(run._plan)
            storage.remove(_record_of(run.root))
        raise


def find_run(config: BootstrapConfig, hashes: dict[str, str]) -> Run:
    """Return the run that start_run would make or resume, and write nothing. Arguments and errors are the same."""
    root = storage.absolute(config.run)
    path = _record_of(root)
    results = config.model_dump(mode="json", include=set(RESULTS))
    models = fingerprint({"settings": results, "checkpoints": hashes, "code": CODE})
    if storage.exists(path):
        stored = _read_record(path)
        differences = list(_differences(stored, config, hashes))
        if stored.config.input != config.input and not _means_plan(Run(root, stored.models), config.input):
            differences.append(f"input: {stored.config.input!r} in the run, {config.input!r} here")
        if differences:
            raise RunError(
                f"{config.run}: this folder holds a run of other settings; put them back, or start another run "
                f"with run: ANOTHER_FOLDER\n  " + "\n  ".join(differences)
            )
        models = stored.models
    elif _holds_training(root):
        raise RunError(f"{config.run}: holds a training; start the run in another folder with run: ANOTHER_FOLDER")
    return Run(root, models)


def begun_with(root: str) -> BootstrapConfig | None:
    """Return the settings with which a run was last started; None if there is no run yet."""
    path = _record_of(storage.absolute(root))
    return _read_record(path).config if storage.exists(path) else None


def load_run(root: str) -> Run:
    """Return an existing run.

    Raises:
        RunError: the folder is not a run, or its URL contains credentials.
    """
    if has_credentials(root):
        raise RunError(f"{redact(root)}: {CREDENTIALS}")
    root = storage.absolute(root)
    return Run(root, _read_record(_record_of(root)).models)


def _record_of(root: str) -> str:
    """Return the path of a run's record, which need not be there yet."""
    require_folder(root)
    return storage.join(root, "run.yaml")


def _seal(text: str) -> str:
    """Return the first line of run.yaml, by which a change in the others is seen."""
    return f"# check: {fingerprint(text)}"


def _read_record(path: str) -> RunRecord:
    if not storage.exists(path):
        inner = _runs_in(path.rpartition("/")[0])
        inner = [*inner[:_SHOWN], "..."] if len(inner) > _SHOWN else inner
        remedy = f"give one that it holds: {', '.join(inner)}" if inner else "capfilt bootstrap makes one"
        raise RunError(f"{path}: not found, so this is no run folder; {remedy}")
    try:
        return loads(RunRecord, storage.read_bytes(path).decode(), path)
    except (ConfigError, UnicodeDecodeError) as error:
        cause = str(error).removeprefix(f"{path}: ")
        raise RunError(
            f"{path}: is no record of a run ({cause}); put back a copy of it, or remove it "
            f"and bootstrap again with the very settings of the run, batch_size included, by which its ledger is found"
        ) from None


def _holds_training(folder: str) -> bool:
    """Return whether a training has its output in a folder."""
    files, folders = storage.list_entries(folder)
    return "config.yaml" in files and not {"states", "checkpoint"}.isdisjoint(folders)


def _runs_in(folder: str) -> list[str]:
    """Return the runs in a folder that is not a run itself, such as a loop's, which has one in each round."""
    inner = [storage.join(folder, name) for name in storage.list_folders(folder)]
    places = [place for each in inner for place in (each, storage.join(each, "bootstrap"))]
    return [place for place in places if storage.exists(storage.join(place, "run.yaml"))]


def _means_plan(run: Run, inputs: Sequence[str]) -> bool:
    """Return whether inputs mean the shards that a run was planned with, and no others."""
    if not run.has_plan():
        return False
    planned = canonical_urls([shard.url for shard in run.plan()])
    return set(planned) == set(canonical_urls(find_shards(inputs)))


def _differences(stored: RunRecord, config: BootstrapConfig, hashes: dict[str, str]) -> Iterator[str]:
    """Yield a line for each difference in settings that keeps a stored run from being resumed."""
    before, after = (_flat(c.model_dump(mode="json", include=set(RESULTS))) for c in (stored.config, config))
    before |= {VERSION: stored.code} | {f"checkpoint of the {name}": it for name, it in stored.checkpoints.items()}
    after |= {VERSION: CODE} | {f"checkpoint of the {name}": it for name, it in hashes.items()}
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield f"{key}: {before.get(key)!r} in the run, {after.get(key)!r} here"
    if _DAMAGE.index(config.damage) < _DAMAGE.index(stored.config.damage):
        yield f"damage: {stored.config.damage!r} in the run, {config.damage!r} here; it can only be loosened"
    if config.max_failed_share < stored.config.max_failed_share:
        shares = f"{stored.config.max_failed_share} in the run, {config.max_failed_share} here"
        yield f"max_failed_share: {shares}; it can only be loosened"


def _flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings under dotted keys."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
