"""Numbers that are estimated from a sample, each with its 95 % interval."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

NORMAL = 1.96  # standard errors to either side
# The same for means of few values: quantiles of Student's t by degrees of freedom (Student, Biometrika 6, 1908).
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14)


class Estimate(NamedTuple):
    """A number with the bounds of its interval; the three are equal for a number that is known for sure."""

    low: float
    likely: float
    high: float

    def times(self, other: "Estimate | float") -> "Estimate":
        """Return the product of two numbers that are not negative; its interval holds more than 95 % of cases."""
        factor = other if isinstance(other, Estimate) else known(other)
        return Estimate(self.low * factor.low, self.likely * factor.likely, self.high * factor.high)

    def plus(self, other: "Estimate") -> "Estimate":
        """Return the sum; its interval holds more than 95 % of cases."""
        return Estimate(self.low + other.low, self.likely + other.likely, self.high + other.high)


def known(value: float) -> Estimate:
    """Return a number that is known for sure."""
    return Estimate(value, value, value)


def mean(values: Sequence[float]) -> Estimate:
    """Return the mean of a population from a sample of its values; from a single one its error is not known."""
    if len(values) < 2:
        return known(values[0])
    degrees = len(values) - 1
    reach = (STUDENT[degrees - 1] if degrees <= len(STUDENT) else NORMAL) * stdev(values) / math.sqrt(len(values))
    return Estimate(max(0.0, fmean(values) - reach), fmean(values), fmean(values) + reach)


def total(values: Sequence[float], count: int) -> Estimate:
    """Return the sum of a population of `count` values from a sample of them; exact if the sample is all of them."""
    if len(values) == count:
        return known(sum(values))
    drawn = mean(values)
    shrunk = math.sqrt(1 - len(values) / count)  # correction for a finite population: the sample itself is known
    reach = (drawn.high - drawn.likely) * shrunk
    return Estimate(max(drawn.likely - reach, 0.0), drawn.likely, drawn.likely + reach).times(count)
