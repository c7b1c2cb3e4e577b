"""The benchmark of decoding in one process and in several tells the rates of both, and their ratio."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "decoders.py"


@pytest.mark.slow
def test_both_ways_have_a_rate_in_each_round(tmp_path):
    size = ["--units", "2", "--threads", "1", "--images", "24", "--batch", "8", "--rounds", "2"]
    subprocess.run([sys.executable, str(SCRIPT), *size, "--json", str(tmp_path / "out")], check=True)
    result = json.loads((tmp_path / "out").read_text())
    assert {name: len(rates) for name, rates in result["images_per_s"].items()} == {
        "one process": 2,
        "a process each": 2,
    }
    low, high = result["middle_half"]
    assert low <= result["ratio"] <= high
