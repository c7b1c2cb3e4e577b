"""Counts against the comparison that the policy makes, intervals against published values."""

import numpy as np
import pytest

from capfilt.calibrate.curves import STEPS, Curve, Rate, enough


def test_a_score_reaches_every_threshold_that_the_policy_compares_it_equal_to():
    thresholds = (np.arange(STEPS + 1) / STEPS).astype(np.float32)

    curve = Curve.of([thresholds])

    assert curve.reached.tolist() == [int((thresholds >= threshold).sum()) for threshold in thresholds]


def test_a_score_just_below_a_threshold_does_not_reach_it():
    just_below = np.nextafter(np.float32(0.7), np.float32(0))

    curve = Curve.of([np.array([just_below, 0.7], np.float32), np.array([1.0], np.float32)])

    assert [curve.reached[step] for step in (0, 6999, 7000, 7001, STEPS)] == [3, 3, 2, 1, 1]
    assert (curve.at(7000).part, curve.below(7000).part, curve.total) == (2, 1, 3)


def test_no_scores_reach_nothing():
    curve = Curve.of([])
    assert (curve.total, curve.at(0).share, curve.at(0).low, curve.at(0).high) == (0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),  # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_those_of_wilson(part, whole, low, high):
    rate = Rate(part, whole)
    assert (round(rate.low, 4), round(rate.high, 4)) == (low, high)


@pytest.mark.parametrize("error", [0.5, 0.05, 0.01])
def test_enough_is_the_least_number_whose_interval_ends_at_the_error(error):
    wanted = enough(error)
    assert Rate(0, wanted).high <= error < Rate(0, wanted - 1).high
