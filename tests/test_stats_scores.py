import numpy as np
import pytest

from capfilt.stats.scores import band_edges, bands, quantiles


def bins(*scores):
    """Return scores as they are counted: in steps of 0.00005 from -1."""
    return np.bincount([round((score + 1) * 20_000) for score in scores], minlength=40_001)


@pytest.mark.parametrize(
    ("score", "value", "band"),
    [
        ("itm", 0.0, 0),
        ("itm", 0.0499, 0),
        ("itm", 0.05, 1),
        ("itm", 1.0, 19),
        ("itc", -1.0, 0),
        ("itc", -0.9, 1),
        ("itc", 0.0, 10),
        ("itc", 1.0, 19),
    ],
)
def test_an_edge_counts_upwards_and_the_greatest_score_to_the_last_band(score, value, band):
    assert np.flatnonzero(bands(score, bins(value))).tolist() == [band]


def test_edges_are_those_of_the_bands():
    assert band_edges("itm")[:3] == [0.0, 0.05, 0.1]
    assert (band_edges("itc")[0], band_edges("itc")[10], band_edges("itc")[20]) == (-1.0, 0.0, 1.0)


def test_a_quantile_is_the_least_score_that_its_share_does_not_exceed():
    assert quantiles(bins(0.1, 0.2, 0.3, 0.4)) == {"p5": 0.1, "p25": 0.1, "p50": 0.2, "p75": 0.3, "p95": 0.4}
