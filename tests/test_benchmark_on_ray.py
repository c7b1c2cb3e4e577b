"""The benchmark of what Ray costs runs both jobs and tells their rates."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "on_ray.py"


@pytest.mark.slow
def test_both_ways_have_a_rate_and_an_idle_share(tmp_path):
    options = ["--tiny", "--images", "16", "--rounds", "1", "--json", str(tmp_path / "out")]
    subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, check=True, text=True)
    result = json.loads((tmp_path / "out").read_text())
    rates = [result[mode]["images_per_s"]["median"] for mode in ("process", "ray")]
    assert result["ray_to_process"]["median"] == pytest.approx(rates[1] / rates[0], rel=1e-3)
    assert all(0 < result[mode]["idle_share"]["median"] < 1 for mode in ("process", "ray"))
