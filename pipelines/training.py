"""What all training jobs share: the folder, the workers, and the end of a run."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from capfilt.config.tasks import Finetuning
from capfilt.config.training import PretrainConfig
from capfilt.errors import StoppedError
from capfilt.hardware import require_gpus
from capfilt.med.fetch import drop_fetched
from capfilt.runs.status import keep_status
from capfilt.runs.stop import Stop, stop_requested
from capfilt.storage import absolute
from capfilt.training.folder import TrainingRun
from capfilt.training.job import Data, Job
from capfilt.training.loop import train
from workers.driving import driving
from workers.launch import launch

C = TypeVar("C", PretrainConfig, Finetuning)


def run_training(config: C, prepare: Callable[[C, str | None], Job[Data]], stop: Stop | None = None) -> str:
    """Train a model, or resume, and return its checkpoint folder.

    Args:
        config: the job.
        prepare: makes the objective and data on every worker, from the job and the file of the table of shards.
        stop: set by a request to stop, even one that comes after the last step.

    Raises:
        ConfigError: device.kind is cuda, but workers on Ray reserve no GPU.
        RunError: another driver is at work on the run, or has taken it over.
        StoppedError: a stop was requested in the folder; the state is written.
    """
    folder, root = TrainingRun(config.output, config), absolute(config.output)
    if folder.finished:
        folder.begin()
        return folder.checkpoint
    if not config.cluster.in_this_process:
        require_gpus(config.device.kind, config.cluster.gpus_per_worker)
    folder.check()  # before the lease, which must not be written into another job's folder
    meaning = "the state is written, then the job ends"
    with driving(root, meaning, stop) as (lease, _), keep_status(root, lambda: lease.is_held) as board:
        board.set_phase("training")
        folder.begin()  # after the lease: a driver that is refused must not write its settings over the other's
        launch(partial(_work, config, prepare, lease.confirm), folder, config.cluster)
        if stop_requested(root) and not folder.finished:
            raise StoppedError(f"{folder.folder}: goes on from the state of step {folder.newest}")
    return folder.checkpoint


def _work(config: C, prepare: Callable[[C, str | None], Job[Data]], confirm: Callable[[], None]) -> None:
    """Train as one worker of several, or alone."""
    folder = TrainingRun(config.output, config, confirm)
    folder.begin()  # again, since on a worker's machine this may be another folder
    try:
        job = prepare(config, folder.shards)
    finally:
        drop_fetched()
    train(folder, job, config.schedule, config.device, config.tracking, config.seed)
