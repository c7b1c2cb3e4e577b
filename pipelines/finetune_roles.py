"""Fine-tuning by role: the config tells which job it is."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from capfilt.config.tasks import Finetuning, NLVR2Config, VQAConfig
from capfilt.dry_run import DryRun
from pipelines import finetune, finetune_nlvr2, finetune_vqa


class FinetuneJob(NamedTuple):
    """A fine-tuning job with its config."""

    run: Callable[[], str]  # returns the checkpoint folder
    dry_run: Callable[[], DryRun]  # returns what run would do, and what keeps it from that


def job_of(config: Finetuning) -> FinetuneJob:
    """Return the job that a config is for."""
    match config:
        case VQAConfig():
            return FinetuneJob(partial(finetune_vqa.run, config), partial(finetune_vqa.dry_run, config))
        case NLVR2Config():
            return FinetuneJob(partial(finetune_nlvr2.run, config), partial(finetune_nlvr2.dry_run, config))
        case _:
            return FinetuneJob(partial(finetune.run, config), partial(finetune.dry_run, config))
