"""The length of a run and the learning rate of each step."""

import logging
import math
from dataclasses import dataclass

from capfilt.config.training import Schedule

logger = logging.getLogger(__name__)

BY_STEP = ("cosine", "linear")  # decays that change every step, not every epoch


@dataclass(frozen=True)
class Course:
    """A schedule over a training set whose size is known."""

    schedule: Schedule
    epoch_steps: int

    @property
    def steps(self) -> int:
        """The number of steps of the run."""
        return self.schedule.steps or (self.schedule.epochs or 1) * self.epoch_steps

    def done(self, step: int) -> float:
        """Return the share of the steps before a step."""
        return step / self.steps

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0.

        Source: the released code of BLIP for the two decays by epoch; its warm-up ends with the first epoch, however
        short that is.
        """
        plan, by_step = self.schedule, self.schedule.decay in BY_STEP
        if step < plan.warmup_steps and (by_step or step < self.epoch_steps):
            return self._warmup(step)
        epoch = step // self.epoch_steps
        if plan.decay == "epoch_factor":
            return max(plan.min_rate, plan.learning_rate * plan.decay_factor**epoch)
        if by_step:
            done = (step - plan.warmup_steps) / (self.steps - plan.warmup_steps)
        else:
            done = epoch / math.ceil(self.steps / self.epoch_steps)
        left = 1 - done if plan.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
        return plan.min_rate + (plan.learning_rate - plan.min_rate) * left

    def warn_of_warmup(self) -> None:
        """Warn if the run ends before its rate has reached the peak, as the default warm-up makes short runs do."""
        warmup, by_step = self.schedule.warmup_steps, self.schedule.decay in BY_STEP
        if warmup > self.steps and (by_step or self.steps <= self.epoch_steps):
            logger.warning(
                "schedule.warmup_steps: %d, but the run has %d steps: its learning rate never reaches the peak",
                *(warmup, self.steps),
            )

    def _warmup(self, step: int) -> float:
        plan = self.schedule
        if plan.warmup_rate is None:
            return plan.learning_rate * (step + 1) / plan.warmup_steps
        return plan.warmup_rate + (plan.learning_rate - plan.warmup_rate) * step / plan.warmup_steps
