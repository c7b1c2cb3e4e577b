"""The figure of several rounds, and how far they differ."""

from collections.abc import Sequence
from statistics import median, quantiles


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, and the lower and the upper quartile; those of a single round are its own value."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return median(values), low, high
