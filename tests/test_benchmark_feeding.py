"""The benchmark of decoding tells a rate for each size, form and number of threads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "feeding.py"
SMALL = "--side 32 --rounds 2 --pictures 1 --batches 2 --threads 1 2"


@pytest.mark.slow
def test_each_size_has_a_rate_for_each_form_and_each_number_of_threads_an_idle_share():
    done = subprocess.run([sys.executable, str(SCRIPT), *SMALL.split()], capture_output=True, check=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    by_size = [line for line in lines if "form" in line]
    idle = [line["idle_share"] for line in lines if "form" not in line]
    assert [line["form"] for line in by_size] == ["usual", "whole", "shrunk", "to side"] * 4
    assert [line["levels_max"] for line in by_size if line["form"] == "whole"] == [0.0] * 4  # it is what it is held to
    assert len(idle) == 2
    assert all(0 <= share <= 1 for share in idle)
