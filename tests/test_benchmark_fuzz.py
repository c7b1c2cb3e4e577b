"""The fuzzer runs, and what it once found stays mended."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks/fuzz.py"


def test_some_hundred_damaged_files_are_borne(tmp_path):
    """Case 111205 is a damaged footer at which pyarrow ended the process."""
    command = [sys.executable, SCRIPT, "--first=111150", "--cases=300", "--seconds=300", f"--keep={tmp_path}"]

    result = subprocess.run(command, capture_output=True, text=True)

    assert result.stdout == "300 cases, 0 failed\n", result.stderr[-2000:]
    assert (result.returncode, list(tmp_path.iterdir())) == (0, [])
