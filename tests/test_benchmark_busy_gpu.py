"""The benchmark of what the host does beside a GPU tells rates and idle shares."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "busy_gpu.py"


def test_rates_and_idle_shares_are_told_for_each_number_of_units_in_hand(tmp_path):
    sizes = ["--captions", "2", "--shards", "3", "--unit", "32", "--batch", "8", "--rounds", "1"]
    slow = ["--captioner", "4", "--filter", "4"]  # so that what else the machine does hardly counts
    subprocess.run([sys.executable, str(SCRIPT), *sizes, *slow, "--json", str(tmp_path / "out")], check=True)
    result = json.loads((tmp_path / "out").read_text())
    assert list(result["median"]) == ["n = 2, 1 in hand", "n = 2, 3 in hand"]
    for each in result["median"].values():
        assert 0 < each["images_per_second"] < 1000 / 8
        assert 0 < each["idle"] < 1
        assert each["cpu_us"] > 0
