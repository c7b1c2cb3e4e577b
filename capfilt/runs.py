"""The run folder: where everything of a bootstrap run lies, and the settings it is tied to.

    RUN/run.yaml                             settings and checkpoint hashes, written first
    RUN/plan/shards.parquet                  the shards, as they were when the run was planned
    RUN/journal.jsonl                        events, for people; never read back
    RUN/lease.json                           who is at work on the run, if anyone is
    RUN/ledger/MODELS/SHARD.json             commit record: the shard is complete; SHARD.samples.parquet and
                                             SHARD.candidates.parquet beside it
    RUN/ledger/MODELS/SHARD/LO-HI.*          the same for a unit, while its shard is in work
    RUN/quarantine/MODELS/SHARD/POSITION.json
                                             a sample that ends, stops or breaks its worker, and how
    RUN/clean/POLICY-FINGERPRINT/            clean shards under one policy

Paths carry fingerprints of what their files depend on, so files of other settings can never be mistaken for these.
"""

import hashlib
import io
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from capfilt import storage
from capfilt.config import BootstrapConfig, Config, ExportConfig, Policy, dump, loads
from capfilt.config.bootstrap import RESULTS
from capfilt.display import CREDENTIALS, has_credentials, shown
from capfilt.errors import RunError
from capfilt.records import Shard

CODE = "2"
"""Version of the code that decides what the models say; raised when equal settings come to give other results."""

EXPORT_FORMAT = "1"
"""Version of the clean shards; raised when an equal selection comes to be written in another way."""

logger = logging.getLogger(__name__)

_DAMAGE = ("fail", "skip-shard", "keep-readable")  # each accepts all that the ones before it accept

_PLAN = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        "size": pa.int64(),
        "digest": pa.string(),
        "samples": pa.int64(),
        "damage": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder: where its files lie. It is small and can be sent to workers."""

    root: str
    models: str  # fingerprint of all that decides what the models say

    @property
    def ledger(self) -> str:
        """The folder of the ledger."""
        return storage.join(self.root, "ledger", self.models)

    @property
    def quarantine(self) -> str:
        """The folder of the quarantine records."""
        return storage.join(self.root, "quarantine", self.models)

    def parts(self, shard: Shard) -> str:
        """Return the folder of a shard's units, while it is in work."""
        return storage.join(self.ledger, shard.id)

    def clean(self, config: ExportConfig) -> str:
        """Return the folder of the clean shards under a policy."""
        return storage.join(self.root, "clean", Selection.of(config).folder)

    def config(self) -> BootstrapConfig:
        """Return the settings with which the run was last started."""
        return _read_record(storage.join(self.root, "run.yaml")).config

    def has_plan(self) -> bool:
        """Return whether the run is planned."""
        return storage.exists(self._plan)

    def write_plan(self, shards: Sequence[Shard]) -> None:
        """Fix the shards of the run. Their ids name files, so each is a plain file name of its own."""
        for shard in shards:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", shard.id):  # a dot would end the key of a sample in it
                raise RunError(f"{shard.url}: its id {shard.id!r} cannot name a file; use letters, digits, _ and -")
        double = sorted(id_ for id_, count in Counter(shard.id for shard in shards).items() if count > 1)
        if double:
            raise RunError(f"{self.root}: several shards have the id {', '.join(double)}; rename the files")
        storage.publish(self._plan, parquet_bytes(pa.Table.from_pylist([asdict(s) for s in shards], _PLAN)))

    def plan(self) -> list[Shard]:
        """Return the shards of the run, in the order in which they were planned."""
        if not self.has_plan():
            raise RunError(f"{self.root}: the run has no plan yet; start it with capfilt bootstrap")
        table = pq.read_table(io.BytesIO(storage.read_bytes(self._plan)))
        return [Shard(**row) for row in table.to_pylist()]

    def note(self, event: str, **values: object) -> None:
        """Add an event to the journal, for people; a disk that does not take it stops nothing."""
        line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **values})
        try:
            storage.append(storage.join(self.root, "journal.jsonl"), line.encode() + b"\n")
        except OSError as error:
            logger.warning("not in the journal: %s, because of %s", line, error)

    @property
    def _plan(self) -> str:
        return storage.join(self.root, "plan", "shards.parquet")


class Selection(Config):
    """The content of a clean folder's policy.yaml: all that its files depend on, besides the ledger."""

    policy: Policy
    keep_empty: bool
    format: str

    @classmethod
    def of(cls, config: ExportConfig) -> Self:
        """Return the selection of an export."""
        return cls(policy=config.policy, keep_empty=config.keep_empty, format=EXPORT_FORMAT)

    @property
    def folder(self) -> str:
        """The name of the folder: the policy's own, which alone decides nothing, and a fingerprint of the rest."""
        return f"{self.policy.name}-{fingerprint(self.model_dump(mode='json', exclude={'policy': {'name'}}))}"


class RunRecord(Config):
    """The content of run.yaml."""

    models: str
    code: str
    checkpoints: dict[str, str]
    config: BootstrapConfig


def fingerprint(values: object) -> str:
    """Return a short hash of any JSON value; equal values have equal hashes, in whatever order their keys stand."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def shard_ids(urls: Sequence[str]) -> list[str]:
    """Return an id for each shard: its file name, and a hash of the URL where two files have one name.

    The id of a shard depends on the set of URLs alone, not on their order.
    """
    names = [url.partition("?")[0].rpartition("/")[2] for url in urls]
    stems = [re.sub(r"\W", "_", re.sub(r"\.(tar(\.\w+)?|tgz|parquet)$", "", name), flags=re.ASCII) for name in names]
    count = Counter(stems)
    return [
        stem if stem and count[stem] == 1 else f"{stem}-{fingerprint(url)}"
        for stem, url in zip(stems, urls, strict=True)
    ]


def open_run(config: BootstrapConfig, names: dict[str, str]) -> Run:
    """Make a run folder, or go on with one that was made under the same settings.

    `input` must stay what it was, since the plan is fixed. `damage` and `max_failed_share` decide which
    shards are accepted, and may only be loosened: then all that was accepted before still is, and the
    result is that of the looser settings from the start.

    Args:
        config: the job.
        names: hashes of the checkpoints, {"captioner": ..., "filter": ...}.

    Raises:
        RunError: the folder belongs to other settings; the message lists them.
    """
    root = storage.absolute(config.run)
    path = storage.join(root, "run.yaml")
    results = config.model_dump(mode="json", include=set(RESULTS))
    models = fingerprint({"settings": results, "checkpoints": names, "code": CODE})
    if storage.exists(path):
        stored = _read_record(path)
        differences = list(_differences(stored, config, names))
        if differences:
            raise RunError(
                f"{config.run}: this folder holds a run of other settings; put them back, or start another run "
                f"with run: ANOTHER_FOLDER\n  " + "\n  ".join(differences)
            )
        models = stored.models
    record = RunRecord(models=models, code=CODE, checkpoints=names, config=config)
    storage.publish(path, dump(record).encode())
    return Run(root, models)


def begun_with(root: str) -> BootstrapConfig | None:
    """Return the settings with which a run began; None where there is no run yet."""
    path = storage.join(storage.absolute(root), "run.yaml")
    return _read_record(path).config if storage.exists(path) else None


def load_run(root: str) -> Run:
    """Return an existing run.

    Raises:
        RunError: the folder is no run, or its URL holds credentials.
    """
    if has_credentials(root):
        raise RunError(f"{shown(root)}: {CREDENTIALS}")
    root = storage.absolute(root)
    return Run(root, _read_record(storage.join(root, "run.yaml")).models)


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet: equal tables give equal bytes, however they were put together."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _read_record(path: str) -> RunRecord:
    if not storage.exists(path):
        raise RunError(f"{path}: not found, so this is no run folder; capfilt bootstrap makes one")
    return loads(RunRecord, storage.read_bytes(path).decode(), path)


def _differences(stored: RunRecord, config: BootstrapConfig, names: dict[str, str]) -> Iterator[str]:
    """Yield a line for each setting in which a stored run differs so that it cannot be gone on with."""
    before, after = (_flat(c.model_dump(mode="json", include={*RESULTS, "input"})) for c in (stored.config, config))
    before |= {f"checkpoint of the {name}": value for name, value in stored.checkpoints.items()} | {"code": stored.code}
    after |= {f"checkpoint of the {name}": value for name, value in names.items()} | {"code": CODE}
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
