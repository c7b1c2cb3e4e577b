"""Reads a run's numbers from the device every few steps, and stops a run whose losses are not finite."""

import math
import resource
import time
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from capfilt.config.training import Tracking
from capfilt.errors import ModelError
from capfilt.progress import Progress
from capfilt.training.folder import TrainingRun
from capfilt.training.ranks import gather, rank
from capfilt.training.schedule import Course
from capfilt.training.tracking import Tracker

DIGITS = 5  # after the decimal point, of the numbers written


class Taken(NamedTuple):
    """A step that was taken. Its numbers are on the device, and may not be computed yet."""

    step: int
    names: tuple[str, ...]
    losses: Tensor  # (N,), one for each name
    norm: Tensor  # scalar, length of the gradient


class Watch:
    """Follows the steps of a run. Reading a number waits for the GPU, so most steps are not read."""

    def __init__(self, run: TrainingRun, course: Course, settings: Tracking, objective: nn.Module, start: int) -> None:
        self._run, self._course, self._every, self._objective = run, course, settings.every, objective
        self._tracker = Tracker(run, settings, start) if rank() == 0 else None
        size = course.schedule.batch_size
        self._progress = Progress(course.steps * size, start * size) if rank() == 0 else None
        self._taken: list[Taken] = []
        self._kept, self._note = start, ""
        self._since = (start, time.monotonic())

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress and self._tracker:
            self._progress.__exit__(kind, error, trace)
            self._tracker.close()

    def see(self, taken: Taken) -> None:
        """Record a step; every tracking.every steps, check and write the numbers.

        Raises:
            ModelError: a loss or a gradient since the last check is not a finite number.
        """
        self._taken.append(taken)
        if taken.step % self._every == 0 or taken.step + 1 == self._course.steps:
            self._write(taken)
        if self._progress:
            self._progress.add(self._course.schedule.batch_size, self._note)

    def approve(self, step: int) -> None:
        """Check that the state before a step is worth keeping, and draw the losses up to it; raises as check."""
        self.check()
        self._kept = step
        if self._tracker:
            self._tracker.draw()

    def check(self) -> None:
        """Raise ModelError if a loss, or the length of a gradient, since the last check is not a finite number.

        A gradient that is not finite spoils the weights even if the losses are finite, so no state may follow it.
        """
        taken, self._taken = self._taken, []
        numbers = torch.cat([torch.cat([step.losses, step.norm[None]]) for step in taken]).tolist() if taken else []
        for step in taken:
            (*losses, norm), numbers = numbers[: len(step.names) + 1], numbers[len(step.names) + 1 :]
            if not all(map(math.isfinite, (*losses, norm))):
                listed = ", ".join(f"{name} {loss:g}" for name, loss in zip(step.names, losses, strict=True))
                raise ModelError(
                    f"{self._run.folder}: step {step.step}: the losses are {listed}, the gradient's length {norm:g}; "
                    f"the state of step {self._kept} is kept, but would end the same; train in another output folder "
                    "with a lower schedule.learning_rate, or with schedule.max_gradient_norm"
                )

    def _write(self, taken: Taken) -> None:
        self.check()
        losses = gather(taken.losses[None]).mean(dim=0).tolist()  # (N,), the mean of the ranks
        if not self._tracker:
            return
        by_name = dict(zip(taken.names, losses, strict=True))
        self._note = ", ".join(f"{name} {loss:.3f}" for name, loss in by_name.items())
        values = {
            **by_name,
            "learning_rate": self._course.learning_rate(taken.step),
            "gradient_norm": float(taken.norm),
            **self._inside(taken.step),
            "samples_per_second": self._speed(taken.step),
            "memory_gib": _memory(taken.losses.device),
        }
        self._tracker.add(taken.step, tuple(by_name), {name: _rounded(value) for name, value in values.items()})

    def _inside(self, step: int) -> dict[str, float]:
        """Return the temperature of ITC and the age of the oldest queue entry, if the objective has them."""
        found = {}
        temperature = getattr(self._objective.model, "temperature", None)
        if isinstance(temperature, Tensor):
            found["temperature"] = temperature.item()
        if (momentum := getattr(self._objective, "momentum", None)) is not None:
            steps = math.ceil(momentum.settings.queue / self._course.schedule.batch_size)
            found["queue_age"] = min(step + 1, steps)  # in steps; random entries count from step 0
        return found

    def _speed(self, step: int) -> float:
        """Return the samples per second since the previous line; for the first line, those of one step."""
        (before, since), self._since = self._since, (step + 1, time.monotonic())
        return (step + 1 - before) * self._course.schedule.batch_size / (self._since[1] - since)


def _memory(device: torch.device) -> float:
    """Return the peak memory so far in GiB: of the GPU, or of the process if it trains on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _rounded(value: float) -> float:
    """Return a number rounded for metrics.jsonl: five digits after the point, or five significant ones below 1."""
    return round(value, DIGITS) if abs(value) >= 1 else float(f"{value:.{DIGITS}g}")
