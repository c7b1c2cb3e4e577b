"""How well scores agree with verdicts: area under the ROC curve, rank correlation, precision and recall.

Shapes: P pairs of image and text.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LEVEL = 0.95  # of confidence intervals


def auc(scores: Floats, match: Flags, weights: Floats | None = None) -> float:
    """Return the probability that a matching pair scores higher than one that does not match; ties count half.

    Args:
        scores: of each pair, (P,).
        match: (P,), True for pairs that match; both kinds must occur.
        weights: how often each pair counts, (P,); None: once each.

    Source:
        the Mann-Whitney statistic.
    """
    levels = np.unique(scores, return_inverse=True)[1]
    return _auc(levels, match, np.ones(len(scores)) if weights is None else weights)


def auc_interval(scores: Floats, match: Flags, images: NDArray[np.int64], resamples: int, seed: int) -> list[float]:
    """Return the 95 % confidence interval of auc, by drawing images with all their pairs, with replacement.

    Pairs of one image are not independent, so drawing pairs would give too narrow an interval.

    Args:
        scores: of each pair, (P,).
        match: (P,).
        images: the number of each pair's image, (P,), from 0.
        resamples: draws.
        seed: of the draws.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    size, levels = int(images.max()) + 1, np.unique(scores, return_inverse=True)[1]
    drawn = []
    for _ in range(resamples):
        weights = np.bincount(rng.integers(size, size=size), minlength=size)[images].astype(np.float64)
        if (weights * match).any() and (weights * ~match).any():
            drawn.append(_auc(levels, match, weights))
    tail = (1 - LEVEL) / 2
    return [float(bound) for bound in np.quantile(drawn, [tail, 1 - tail])] if drawn else []


def spearman(scores: Floats, values: Floats) -> float:
    """Return the rank correlation, in [-1, 1], of scores and values (P,), neither constant; ties share a rank."""
    return float(np.corrcoef(_ranks(scores), _ranks(values))[0, 1])


def precision_recall(scores: Floats, match: Flags, least: float) -> dict[str, float | None]:
    """Return precision and recall if pairs that score at least `least` are kept; a precision of None if none is."""
    kept = scores >= least
    return {
        "least": least,
        "kept": float(kept.mean()),
        "precision": float(match[kept].mean()) if kept.any() else None,
        "recall": float(kept[match].mean()) if match.any() else None,
    }


def _auc(levels: NDArray[np.int64], match: Flags, weights: Floats) -> float:
    """Return auc of pairs whose scores are given as levels (P,), 0 for the lowest score."""
    false, true = np.bincount(levels, weights * ~match), np.bincount(levels, weights * match)
    below = false.cumsum() - false / 2
    return float(true @ below / (true.sum() * false.sum()))


def _ranks(values: Floats) -> Floats:
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (counts.cumsum() - (counts - 1) / 2)[at]
    return ranks
