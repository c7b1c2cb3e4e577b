"""The benchmark of a step's memory takes steps, each number of blocks in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "step_memory.py"
SMALL = "--width 64 --depth 2 --image 32 --batch 2 --queue 64 --vocabulary 60 --tokens 8 --blocks 0 2"


@pytest.mark.slow
def test_it_tells_what_a_step_takes_for_each_number_of_recomputed_blocks():
    done = subprocess.run([sys.executable, str(SCRIPT), *SMALL.split()], capture_output=True, check=True, text=True)
    steps = json.loads(done.stdout)["steps"]
    assert list(steps) == ["0 recomputed", "2 recomputed"]
    assert all(set(step) == {"most_gib", "seconds"} and step["most_gib"] > 0 for step in steps.values())
