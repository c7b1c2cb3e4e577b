"""What a folder of clean shards depends on: the policy, and whatever else decides which texts it holds and how."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from capfilt.config import Config, ExportConfig, Policy, dump, load, loads
from capfilt.config.loading import read
from capfilt.errors import ConfigError
from capfilt.fingerprint import fingerprint

EXPORT_FORMAT = "3"
"""Version of the clean shards; raised when a change makes an equal selection be written differently."""


class Selection(Config):
    """The content of a clean folder's policy.yaml: everything that its files depend on besides the ledger."""

    policy: Policy
    keep_empty: bool
    format: str

    @classmethod
    def of(cls, config: ExportConfig) -> Self:
        """Return the selection of an export."""
        return cls(policy=config.policy, keep_empty=config.keep_empty, format=EXPORT_FORMAT)

    @property
    def folder(self) -> str:
        """The name of the folder: the policy's name, which decides nothing, and a fingerprint of everything else."""
        return f"{self.policy.name}-{fingerprint(self.model_dump(mode='json', exclude={'policy': {'name'}}))}"


def load_policy(path: Path, overrides: Sequence[str] = ()) -> Policy:
    """Read a policy from YAML as load does: a policy's own file, or the policy.yaml of a clean folder."""
    values = read(path)
    if "format" in values:  # of a clean folder
        return loads(Policy, dump(load(Selection, path).policy), str(path), overrides)
    if values.keys() & {"input", "run", "policy"}:
        raise ConfigError(f"{path}: is the config of a job; give a file that holds only what is under its policy key")
    return load(Policy, path, overrides)
