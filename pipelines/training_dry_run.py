"""The dry run of a training job: its folder, its model without weights, its data and the first sample."""

from collections.abc import Callable

import torch
from torch import nn

from capfilt.config.data import DataSettings
from capfilt.display import counted
from capfilt.dry_run import DryRun
from capfilt.hardware import require_gpus
from capfilt.runs.lease import require_free
from capfilt.storage import absolute, exists
from capfilt.training.devices import precision
from capfilt.training.folder import KEPT, TrainingRun
from capfilt.training.job import Data, Job
from capfilt.training.schedule import Course
from capfilt.training.tracking import require_packages
from pipelines.training import C
from workers.room import find_room


def dry_run_training(name: str, config: C, prepare: Callable[[C, str | None], Job[Data]]) -> DryRun:
    """Return what a training job would do, and what would stop it. Nothing is written.

    Args:
        name: the job's name in the output.
        config: the job.
        prepare: as in run_training; it is given the table of shards if there is one.
    """
    dry, run, shards = DryRun(name), TrainingRun(config.output, config), None
    with dry.examine():
        if config.cluster.in_this_process:
            dry.tell("device", f"{precision(config.device).device}, in this process")
            require_packages(config.tracking)  # workers on Ray may have what this machine lacks
        else:
            require_gpus(config.device.kind, config.cluster.gpus_per_worker)
            dry.tell("workers", find_room(config.cluster.asked))
    with dry.examine():
        if run.check() and exists(run.shards):  # with other settings, the job indexes the shards anew
            shards = run.shards
        if run.finished:
            dry.tell("run", f"is done: {run.checkpoint} is there")
            return dry
        require_free(absolute(config.output))
        dry.tell("run", f"goes on from the state of step {run.newest}" if run.newest else "starts at step 0")
    with dry.examine():
        with torch.device("meta"):
            job = prepare(_light(config), shards)
        _tell(dry, config, job)
        for _ in job.data.batches(range(1), 0, config.schedule.batch_size):
            dry.tell("data", "the first sample was read")
    return dry


def _tell(dry: DryRun, config: C, job: Job[Data]) -> None:
    schedule, data = config.schedule, job.data
    course = Course(schedule, data.epoch_steps)
    course.warn_of_warmup()
    steps = course.steps
    learned = [parameter for parameter in job.objective.parameters() if parameter.requires_grad]
    dry.tell("model", f"{sum(parameter.numel() for parameter in learned):,} parameters are learned")
    dry.tell(
        "data", f"{counted(len(data), 'sample')}, {counted(data.epoch_steps, 'step')} of {schedule.batch_size} an epoch"
    )
    dry.tell("does", f"{counted(steps, 'step')}, {steps / data.epoch_steps:.1f} epochs")
    model = _bytes(job.objective)
    state = model + 2 * sum(parameter.nbytes for parameter in learned)  # AdamW keeps two moments of each
    dry.writes(config.output, (KEPT + 1) * state + model)  # a new state is written before an old one is removed


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _light(config: C) -> C:
    """Return the job with its data read on access, in this process."""
    changes: dict[str, object] = {"workers": 0}
    if isinstance(config.data, DataSettings):
        changes["in_memory"] = False
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})
