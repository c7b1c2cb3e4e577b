"""The benchmark of forecasts holds each number of one against what came."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "plan_estimate.py"
SMALL = "--width 32 --depth 2 --image 32 --samples 60 --shard 20 --images 16 --batch 4"


@pytest.mark.slow
def test_what_was_foreseen_stands_beside_what_came():
    done = subprocess.run([sys.executable, str(SCRIPT), *SMALL.split()], capture_output=True, check=True, text=True)
    compared = json.loads(done.stdout)["compared"]
    assert set(compared) == {"seconds", "ledger_bytes", "clean_bytes", "kept_web", "kept_synthetic"}
    for figure in compared.values():
        low, likely, high = (figure["foreseen"][side] for side in ("low", "likely", "high"))
        assert low <= likely <= high
        assert figure["within"] == (low <= figure["came"] <= high)
