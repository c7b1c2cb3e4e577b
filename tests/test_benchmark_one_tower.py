"""The benchmark of a shared vision tower finds both ways to say the same, and tells how they compare."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "one_tower.py"


@pytest.mark.slow
def test_both_ways_have_a_rate_and_their_ratio(tmp_path):
    options = ["--model", "tiny", "--captions", "1", "3", "--rounds", "1", "--json", str(tmp_path / "out")]
    subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, check=True, text=True)
    result = json.loads((tmp_path / "out").read_text())
    for case in ("n = 1", "n = 3"):
        rates = result[case]["images_per_s"]
        assert result[case]["ratio"] == pytest.approx(rates["shared"] / rates["apart"], rel=1e-2)
