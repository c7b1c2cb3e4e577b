"""Fine-tuning by role: the key that tells which job it is, and which its other settings are."""

from collections.abc import Sequence
from pathlib import Path

from capfilt.config import load
from capfilt.config.tasks import FinetuneRole, NLVR2Config, VQAConfig
from capfilt.config.training import FinetuneConfig
from capfilt.outlook import Outlook
from pipelines import finetune, finetune_nlvr2, finetune_vqa


def run(path: Path, overrides: Sequence[str]) -> str:
    """Read a config, run its job, and return the checkpoint folder.

    Raises:
        ConfigError: the config lacks a known role, or its other keys are not those of the role.
    """
    match load(FinetuneRole, path, overrides).role:
        case "vqa":
            return finetune_vqa.run(load(VQAConfig, path, overrides))
        case "nlvr2":
            return finetune_nlvr2.run(load(NLVR2Config, path, overrides))
        case _:
            return finetune.run(load(FinetuneConfig, path, overrides))


def dry_run(path: Path, overrides: Sequence[str]) -> Outlook:
    """Read a config, and return what run would do with it, and what keeps it from that. Nothing is written."""
    match load(FinetuneRole, path, overrides).role:
        case "vqa":
            return finetune_vqa.dry_run(load(VQAConfig, path, overrides))
        case "nlvr2":
            return finetune_nlvr2.dry_run(load(NLVR2Config, path, overrides))
        case _:
            return finetune.dry_run(load(FinetuneConfig, path, overrides))
