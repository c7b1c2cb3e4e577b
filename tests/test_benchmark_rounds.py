"""The median and the quartiles of the rounds of a benchmark."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from rounds import spread


@pytest.mark.parametrize(
    ("values", "expected"), [([4.0], (4, 4, 4)), ([1.0, 3.0], (2, 1.5, 2.5)), ([9.0, 1.0, 2.0, 4.0, 3.0], (3, 2, 4))]
)
def test_the_middle_half_lies_among_the_rounds_however_few(values, expected):
    assert spread(values) == expected
