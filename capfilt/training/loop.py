"""The training loop: AdamW on an objective, alone or together with other ranks, resumed from its last state.

    global batch of a step  =  workers x accumulation  shares, each as large
    gradient of a step      =  the mean of the shares' gradients

All randomness of a step depends on seed, step and share alone, so a killed run resumes as if it had never stopped.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from capfilt.config.training import Schedule, Tracking, TrainingDevice
from capfilt.errors import RunError
from capfilt.med.gpu import send
from capfilt.runs.stop import Stop, hear_stop
from capfilt.training.devices import Precision, precision
from capfilt.training.folder import TrainingRun
from capfilt.training.job import Data, Job
from capfilt.training.objectives import Losses
from capfilt.training.optimiser import adamw, update
from capfilt.training.ranks import gather, rank, world_size
from capfilt.training.recompute import recompute
from capfilt.training.schedule import Course
from capfilt.training.watch import Taken, Watch

SHARE_SEEDS = 0x9E3779B97F4A7C15  # sets the shares of a step apart; share 0 has the seeds of a single process


def train(
    run: TrainingRun, job: Job[Data], schedule: Schedule, device: TrainingDevice, tracking: Tracking, seed: int
) -> None:
    """Train the job's objective in place and let the job write its checkpoint into the run's folder.

    If a stop is requested in the folder, the state is written and the run stays unfinished. Every rank calls this with
    the same arguments; the first one writes.

    Raises:
        ModelError: a loss or a gradient is not a finite number; the last state is kept.
        RunError: every state is damaged, or the ranks see different states.
    """
    where = precision(device)
    job.objective.to(where.device).train()
    optimiser = adamw(job.objective, schedule, where.device)
    start = _restore(run, job, optimiser, where.device)
    recompute(job.objective.model, device)
    if device.compile:
        job.objective.compile()
    course = Course(schedule, job.data.epoch_steps)
    if rank() == 0:
        course.warn_of_warmup()
        run.note_data(len(job.data), course.steps, job.data.left_out)
    stepper = _Stepper(job, optimiser, course, where, seed)
    with (
        Watch(run, course, tracking, job.objective, start) as watch,
        hear_stop(run.folder) if rank() == 0 else nullcontext(Stop()) as stop,
    ):
        for step, shares in enumerate(_shares(job, schedule, range(start, course.steps)), start):
            watch.see(stepper.take(step, shares))
            if step + 1 == course.steps:
                break
            stopping = step % tracking.every == 0 and _agreed(stop, where.device)
            if stopping or (step + 1) % schedule.checkpoint_steps == 0:
                watch.approve(step + 1)
                _save(run, job, optimiser, step + 1)
            if stopping:
                return
        watch.approve(course.steps)
    if rank() == 0:
        run.note_data(len(job.data), course.steps, job.data.left_out)
        job.objective.cpu().eval()
        run.finish(job.write)


def _agreed(stop: Stop, device: torch.device) -> bool:
    """Return whether the first rank was asked to stop. This waits for the GPU to finish its work."""
    return bool(gather(torch.tensor([int(stop.asked)], device=device))[0])


def _restore(run: TrainingRun, job: Job[Data], optimiser: Optimizer, device: torch.device) -> int:
    """Load the newest state, if there is one, and return the step to resume at."""
    state = run.restore()
    step = state["step"] if state else 0
    seen = gather(torch.tensor([step], device=device)).tolist()  # (W,)
    if set(seen) != {step}:
        raise RunError(
            f"{run.folder}: the workers found states of steps {', '.join(map(str, seen))}; "
            "set output to a URL, or to a folder that all machines share"
        )
    if state:
        for name, part in _parts(job, optimiser).items():
            part.load_state_dict(state[name])
    return int(step)


def _save(run: TrainingRun, job: Job[Data], optimiser: Optimizer, step: int) -> None:
    if rank() == 0:
        run.save({"step": step} | {name: part.state_dict() for name, part in _parts(job, optimiser).items()})


def _parts(job: Job[Data], optimiser: Optimizer) -> dict[str, Any]:
    """Return what a state holds, by name."""
    return {"objective": job.objective, "optimiser": optimiser, "source": job.data}  # names of saved states


def _shares(job: Job[Data], schedule: Schedule, steps: range) -> Iterator[Sequence[Data]]:
    """Yield, for each step, the batches of this rank's shares."""
    each, count = schedule.accumulation, world_size() * schedule.accumulation
    mine = range(rank() * each, (rank() + 1) * each)
    return zip(*(job.data.batches(steps, share, count) for share in mine), strict=True)


class _Stepper(Generic[Data]):
    """Takes optimiser steps."""

    def __init__(self, job: Job[Data], optimiser: Optimizer, course: Course, where: Precision, seed: int) -> None:
        self.module, self.optimiser = _distributed(job), optimiser
        self.course, self.where, self.seed = course, where, seed

    def take(self, step: int, shares: Sequence[Data]) -> Taken:
        """Add up the gradients of this rank's shares, average them over the ranks, and update the weights."""
        losses: Losses = {}
        for number, batch in enumerate(shares):
            torch.manual_seed((self.seed * 1_000_003 + step + (rank() * len(shares) + number) * SHARE_SEEDS) % 2**63)
            with nullcontext() if number + 1 == len(shares) else self._alone():
                for name, loss in self._gradient(step, batch, len(shares)).items():
                    losses[name] = losses.get(name, 0.0) + loss
        rate = self.course.learning_rate(step)
        norm = update(self.optimiser, rate, self.course.schedule.max_gradient_norm)
        return Taken(step, tuple(losses), torch.stack(list(losses.values())), norm)

    def _gradient(self, step: int, batch: Data, shares: int) -> Losses:
        """Add the gradient of a share of the batch to those before it; return its part of the losses."""
        moved = type(batch)(*(send(tensor, self.where.device) for tensor in batch))
        with self.where.autocast():
            losses: Losses = self.module(moved, self.course.done(step))
        parts = {name: loss / shares for name, loss in losses.items()}
        sum(parts.values(), torch.zeros((), device=self.where.device)).backward()  # type: ignore[no-untyped-call]
        return {name: part.detach() for name, part in parts.items()}

    def _alone(self) -> AbstractContextManager[None]:
        """Return the context in which gradients are not averaged over the ranks."""
        return self.module.no_sync() if isinstance(self.module, DistributedDataParallel) else nullcontext()


def _distributed(job: Job[Data]) -> nn.Module:
    """Return the objective, with its gradients averaged over the ranks if there are several."""
    if world_size() == 1:
        return job.objective
    distributed = DistributedDataParallel(job.objective, find_unused_parameters=job.idle_parameters)
    # The queues are buffers; all ranks gather the same features, so there is nothing to send before each step. The
    # constructor's argument of this name is deprecated since torch 2.13, its successor unknown to older releases.
    distributed.broadcast_buffers = False
    return distributed
