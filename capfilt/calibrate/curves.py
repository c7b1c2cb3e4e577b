"""How many scores reach each threshold, compared exactly as a policy does, and how certain a measured share is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

STEPS = 10_000
"""Thresholds are multiples of 1 / STEPS, except the one in force."""

LEVEL = 0.95  # of confidence intervals
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
_THRESHOLDS = (np.arange(STEPS + 1) / STEPS).astype(np.float32)  # as the policy rounds them


@dataclass(frozen=True, slots=True)
class Rate:
    """A counted share, with its confidence interval.

    Source:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """

    part: int
    whole: int

    @property
    def share(self) -> float:
        """The share itself; 0 if nothing was counted."""
        return self.part / self.whole if self.whole else 0.0

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return max(0.0, self._middle - self._half) if self.part else 0.0

    @property
    def high(self) -> float:
        """The upper end of the interval; 1 if nothing was counted."""
        return min(1.0, self._middle + self._half) if self.part < self.whole else 1.0

    @property
    def _middle(self) -> float:
        return (self.part + _Z**2 / 2) / (self.whole + _Z**2)

    @property
    def _half(self) -> float:
        spread = self.share * (1 - self.share) * self.whole + _Z**2 / 4
        return _Z * math.sqrt(spread) / (self.whole + _Z**2)

    def to_json(self) -> dict[str, float]:
        """Return the counts, the share and its interval."""
        return {"part": self.part, "whole": self.whole, "share": self.share, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Curve:
    """How many scores reach each threshold."""

    reached: NDArray[np.int64]  # (STEPS + 1,): scores that reach the threshold step / STEPS
    passed: int  # scores that reach the threshold in force, which may lie between two steps

    @classmethod
    def of(cls, batches: Iterable[NDArray[np.float32]], in_force: float = 0.0) -> "Curve":
        """Count scores in [0, 1]. A score that equals a threshold reaches it."""
        counts, passed = np.zeros(STEPS + 1, np.int64), 0
        for scores in batches:
            steps = np.searchsorted(_THRESHOLDS, scores, side="right") - 1
            counts += np.bincount(steps, minlength=STEPS + 1)
            passed += int(np.count_nonzero(scores >= np.float32(in_force)))
        return cls(counts[::-1].cumsum()[::-1], passed)

    @property
    def total(self) -> int:
        """How many scores there are."""
        return int(self.reached[0])

    def at(self, step: int) -> Rate:
        """Return the share that reaches the threshold step / STEPS."""
        return Rate(int(self.reached[step]), self.total)

    @property
    def in_force(self) -> Rate:
        """The share that reaches the threshold in force."""
        return Rate(self.passed, self.total)

    def below(self, step: int) -> Rate:
        """Return the share that does not reach the threshold step / STEPS."""
        return Rate(self.total - int(self.reached[step]), self.total)


def enough(error: float) -> int:
    """Return how many scores are needed so that, if none of them is accepted, the interval ends at `error`."""
    return math.ceil(_Z**2 * (1 - error) / error)
