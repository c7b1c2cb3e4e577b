import random
from statistics import fmean

import pytest

from capfilt.forecast.estimates import Estimate, known, mean, total


def test_all_values_are_known_for_sure():
    assert total([3, 4, 5], 3) == (12, 12, 12)
    assert total([], 0) == (0, 0, 0)


def test_the_bounds_hold_the_truth_as_often_as_they_say():
    chance = random.Random(7)
    population = [chance.lognormvariate(5, 0.5) for _ in range(2000)]
    drawn = [total(chance.sample(population, 100), 2000) for _ in range(1000)]
    inside = sum(found.low <= sum(population) <= found.high for found in drawn)
    assert 920 <= inside <= 975


def test_bounds_of_few_values_are_those_of_student():
    chance = random.Random(3)
    inside = [abs(0 - fmean(v)) for v in ([chance.gauss(0, 1) for _ in range(3)] for _ in range(2000))]
    assert len(inside) == 2000
    kept = 0
    for _ in range(2000):
        found = mean([10 + chance.gauss(0, 1) for _ in range(3)])
        kept += found.low <= 10 <= found.high
    assert 1870 <= kept <= 1930


def test_equal_values_have_no_spread():
    assert total([7] * 5, 100) == (700, 700, 700)
    assert mean([2.0]) == known(2.0)


def test_products_and_sums_keep_the_order_of_bounds():
    found = Estimate(1, 2, 3).times(Estimate(2, 2, 4)).plus(known(1))
    assert found == (3, 5, 13)
    assert Estimate(1, 2, 3).times(2) == pytest.approx((2, 4, 6))
