"""The distribution of scores, counted in fine steps so that memory does not grow with the run."""

import duckdb
import numpy as np
from numpy.typing import NDArray

SCORES = {"itm": (0.0, 1.0), "itc": (-1.0, 1.0)}
"""Name -> least and greatest value."""

QUANTILES = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
"""Name -> share of all values that do not exceed the quantile."""

BANDS = 20

_PER_UNIT = 20_000  # steps; a quantile is exact to one of them

Bins = NDArray[np.int64]
"""The number of scores at each step from -1 to 1."""


def count_scores(rows: duckdb.DuckDBPyRelation) -> dict[tuple[str, str], Bins]:
    """Return how many candidates have each score, by source and name of the score, if any has one.

    Scores are rounded down to a step, in float32 as a policy compares them: a score just below a threshold must not
    count as if it reached the threshold.
    """
    bins: dict[tuple[str, str], Bins] = {}
    for score in SCORES:
        nearest = f"round_even(({score}::double + 1) * {_PER_UNIT}, 0)::int"
        step = f"greatest({nearest} - ({score} < (({nearest} - {_PER_UNIT}) / {_PER_UNIT})::float)::int, 0)"
        counted = rows.filter(f"{score} IS NOT NULL").aggregate(f"source, {step} AS step, count(*) AS n")
        for source, place, count in counted.fetchall():
            bins.setdefault((source, score), np.zeros(2 * _PER_UNIT + 1, np.int64))[place] += count
    return bins


def quantiles(bins: Bins) -> dict[str, float]:
    """Return the quantiles of the scores by name: {"p5": ...}."""
    below = np.cumsum(bins)
    places = np.searchsorted(below, np.array(list(QUANTILES.values())) * below[-1])
    return {name: int(place - _PER_UNIT) / _PER_UNIT for name, place in zip(QUANTILES, places, strict=True)}


def quantiles_of(value: str) -> str:
    """Return SQL for the quantiles of a value over the rows of a group, one column for each."""
    return ", ".join(f"quantile_disc({value}, {share}) AS {name}" for name, share in QUANTILES.items())


def bands(score: str, bins: Bins) -> list[int]:
    """Return how many scores lie in each of BANDS equal parts of the score's range; a band holds its lower edge."""
    least, greatest = ((bound + 1) * _PER_UNIT for bound in SCORES[score])
    steps = np.arange(len(bins))
    places = ((steps - least) * BANDS / (greatest - least)).astype(int).clip(0, BANDS - 1)
    return [int(count) for count in np.bincount(places, weights=bins, minlength=BANDS)]


def band_edges(score: str) -> list[float]:
    """Return the lower edge of each band, and the upper one of the last."""
    least, greatest = SCORES[score]
    return [round(least + n * (greatest - least) / BANDS, 4) for n in range(BANDS + 1)]
