"""The pre-training job: MED on clean, human and web shards."""

from functools import partial
from pathlib import Path

from capfilt.config.training import PretrainConfig
from capfilt.dry_run import DryRun
from capfilt.med.checkpoints import Checkpoint, save
from capfilt.med.initial import start
from capfilt.med.momentum import MOMENTUM, Momentum, save_momentum
from capfilt.runs.stop import Stop
from capfilt.training.data import Batch, open_data
from capfilt.training.job import Job
from capfilt.training.objectives import Pretraining
from pipelines.training import run_training
from pipelines.training_dry_run import dry_run_training


def run(config: PretrainConfig, stop: Stop | None = None) -> str:
    """Pre-train a model, or resume, and return its checkpoint folder; stop as in run_training."""
    return run_training(config, prepare, stop)


def prepare(config: PretrainConfig, shards: str | None) -> Job[Batch]:
    """Return the objective and data of a job; shards is the file of open_data."""
    checkpoint = start(config.model, config.initial, config.seed)
    objective = Pretraining(*checkpoint, config.itm_warmup, config.momentum, config.seed)
    data = open_data(config.data, config.schedule, checkpoint, config.seed, shards)
    write = partial(_write, checkpoint, objective.momentum)
    return Job(objective, data, write, idle_parameters=config.itm_warmup > 0)


def dry_run(config: PretrainConfig) -> DryRun:
    """Return what run would do, and what would stop it. Nothing is written."""
    return dry_run_training("pretrain", config, prepare)


def _write(checkpoint: Checkpoint, momentum: Momentum | None, folder: Path) -> None:
    """Write the model and, for the fine-tuning of a filter, the momentum copies and queues."""
    if momentum is not None:
        save_momentum(momentum, folder / MOMENTUM)
    save(checkpoint, folder)
