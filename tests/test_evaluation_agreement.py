import numpy as np
import pytest

from capfilt.evaluation.agreement import auc, auc_interval, precision_recall, spearman


def test_auc_counts_pairs_in_the_right_order_and_ties_half():
    scores, match = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    # 0.4 beats 0.1 and ties with 0.4; 0.8 beats both: 3.5 of 4
    assert auc(scores, match) == 3.5 / 4
    assert auc(-scores, match) == 0.5 / 4


def test_auc_is_the_written_out_sum_with_weights():
    rng = np.random.default_rng(0)
    scores, match, weights = rng.integers(0, 9, 60) / 9, rng.random(60) < 0.3, rng.integers(0, 3, 60).astype(float)
    pairs = [
        (weights[i] * weights[j], float(scores[i] > scores[j]) + 0.5 * float(scores[i] == scores[j]))
        for i in np.flatnonzero(match)
        for j in np.flatnonzero(~match)
    ]
    expected = sum(weight * won for weight, won in pairs) / sum(weight for weight, _ in pairs)
    assert auc(scores, match, weights) == pytest.approx(expected)


def test_the_interval_holds_the_truth_and_is_wider_when_pairs_share_images():
    rng = np.random.default_rng(1)
    match = rng.random(400) < 0.5
    scores = rng.normal(size=400) + match
    low, high = auc_interval(scores, match, np.arange(400), 300, seed=0)
    assert low < 0.7602 < high  # the chance that N(1, 1) is over N(0, 1)
    assert low < auc(scores, match) < high
    # Every pair four times over under one image is no new evidence.
    again = auc_interval(np.tile(scores, 4), np.tile(match, 4), np.tile(np.arange(400), 4), 300, seed=0)
    assert again == pytest.approx([low, high])


def test_spearman_shares_ranks_among_equals():
    scores, values = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 5.0, 7.0])
    assert spearman(scores, values) == pytest.approx(np.corrcoef([1, 2, 3, 4], [1.5, 1.5, 3, 4])[0, 1])
    assert spearman(scores**3, scores) == pytest.approx(1)
    assert spearman(-scores, scores) == pytest.approx(-1)


def test_precision_and_recall_at_a_threshold_that_is_kept():
    scores, match = np.array([0.5, 0.6, 0.4, 0.9]), np.array([True, False, True, True])
    assert precision_recall(scores, match, 0.5) == {"least": 0.5, "kept": 0.75, "precision": 2 / 3, "recall": 2 / 3}
    assert precision_recall(scores, match, 1.0)["precision"] is None
    assert precision_recall(scores, np.zeros(4, dtype=bool), 0.5)["recall"] is None
