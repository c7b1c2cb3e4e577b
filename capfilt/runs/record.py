"""run.yaml, the record of a run: the settings and checkpoints that its results follow from."""

from collections.abc import Iterator

from capfilt import storage
from capfilt.config import BootstrapConfig, Config, dump, loads
from capfilt.config.bootstrap import RESULTS
from capfilt.display import listed
from capfilt.errors import ConfigError, RunError
from capfilt.fingerprint import fingerprint
from capfilt.runs.lease import require_folder

CODE = "16"
"""Version of the code that decides what the models say; raised when equal settings would give other results."""

VERSION = "version of capfilt's results"  # what messages call CODE

_SHOWN = 3  # runs that a message lists when a folder is not a run but contains some
_DAMAGE = ("fail", "skip-shard", "keep-readable")  # each accepts all that the ones before it accept


class RunRecord(Config):
    """The content of run.yaml. Its first line, a comment, is a hash of the others."""

    models: str  # fingerprint of everything that decides what the models say
    code: str
    checkpoints: dict[str, str]  # hashes: {"captioner": ..., "filter": ...}
    config: BootstrapConfig

    @classmethod
    def of(cls, config: BootstrapConfig, hashes: dict[str, str]) -> "RunRecord":
        """Return the record of a run that begins with some settings and checkpoints."""
        results = config.model_dump(mode="json", include=set(RESULTS))
        models = fingerprint({"settings": results, "checkpoints": hashes, "code": CODE})
        return cls(models=models, code=CODE, checkpoints=hashes, config=config)

    @classmethod
    def read(cls, root: str) -> "RunRecord":
        """Return the record of a run.

        Raises:
            RunError: the folder is not a run, cannot be seen from here, or its record cannot be read.
        """
        path = record_path(root)
        if not storage.exists(path):
            inner = _runs_in(root)
            some = ", ".join(listed(inner, _SHOWN, "..."))
            remedy = f"give one that it holds: {some}" if inner else "capfilt bootstrap makes one"
            raise RunError(f"{path}: not found, so this is not a run folder; {remedy}")
        try:
            return loads(cls, storage.read_bytes(path).decode(), path)
        except (ConfigError, UnicodeDecodeError) as error:
            cause = str(error).removeprefix(f"{path}: ")
            raise RunError(
                f"{path}: is not the record of a run ({cause}); put back a copy of it, or remove it and bootstrap "
                f"again with exactly the settings of the run, batch_size included: its ledger is found by them"
            ) from None

    def publish(self, root: str) -> None:
        """Write the record to a run's folder."""
        text = dump(self)
        storage.publish(record_path(root), f"{_seal(text)}\n{text}".encode())

    def differences(self, other: "RunRecord") -> Iterator[str]:
        """Yield a line for each difference that keeps the run from being resumed with the settings of another record.

        `input` is not compared, since other words may mean the same shards.
        """
        before, after = self._results(), other._results()
        for key in {**before, **after}:
            if before.get(key) != after.get(key):
                yield f"{key}: {before.get(key)!r} in the run, {after.get(key)!r} here"
        if _DAMAGE.index(other.config.damage) < _DAMAGE.index(self.config.damage):
            yield f"damage: {self.config.damage!r} in the run, {other.config.damage!r} here; it can only be loosened"
        if other.config.max_failed_share < self.config.max_failed_share:
            shares = f"{self.config.max_failed_share} in the run, {other.config.max_failed_share} here"
            yield f"max_failed_share: {shares}; it can only be loosened"

    def _results(self) -> dict[str, object]:
        """Return what the results follow from, under the names that messages give it."""
        hashes = {f"checkpoint of the {role}": value for role, value in self.checkpoints.items()}
        return _flat(self.config.model_dump(mode="json", include=set(RESULTS))) | {VERSION: self.code} | hashes


def record_path(root: str) -> str:
    """Return the path of a run's record, which need not be there yet."""
    require_folder(root)
    return storage.join(root, "run.yaml")


def is_record_as_written(root: str) -> bool:
    """Return whether run.yaml is as it was written. An earlier version wrote no hash, which is taken for yes."""
    seal, _, text = storage.read_bytes(record_path(root)).decode().partition("\n")
    return not seal.startswith("#") or seal == _seal(text)


def _seal(text: str) -> str:
    """Return the first line of run.yaml, by which a change in the others is seen."""
    return f"# check: {fingerprint(text)}"


def _runs_in(folder: str) -> list[str]:
    """Return the runs in a folder that is not a run itself, such as a loop's, which has one in each round."""
    inner = [storage.join(folder, name) for name in storage.list_folders(folder)]
    places = [place for each in inner for place in (each, storage.join(each, "bootstrap"))]
    return [place for place in places if storage.exists(storage.join(place, "run.yaml"))]


def _flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings under dotted keys."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
