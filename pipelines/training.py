"""What every training job does around what it trains: its folder, its workers, its end."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from capfilt.config.tasks import NLVR2Config, VQAConfig
from capfilt.config.training import FinetuneConfig, PretrainConfig
from capfilt.training.folder import TrainingRun
from capfilt.training.job import Data, Job
from capfilt.training.loop import train
from workers.launch import launch

C = TypeVar("C", PretrainConfig, FinetuneConfig, VQAConfig, NLVR2Config)


def run_training(config: C, prepare: Callable[[C, str | None], Job[Data]]) -> str:
    """Train a model, or go on where it stopped, and return its checkpoint folder.

    Args:
        config: the job.
        prepare: makes what is trained, on every worker, and reads the table of shards where there is one.
    """
    folder = TrainingRun(config.output, config)
    folder.begin()
    if not folder.finished:
        launch(partial(_work, config, prepare), folder, config.cluster)
    return folder.checkpoint


def _work(config: C, prepare: Callable[[C, str | None], Job[Data]]) -> None:
    """Train as one of the workers, or as the only one."""
    folder = TrainingRun(config.output, config)
    folder.begin()  # also here, where the folder of a worker's own machine may be another
    train(folder, prepare(config, folder.shards), config.schedule, config.device, config.tracking, config.seed)
