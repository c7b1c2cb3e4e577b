"""The benchmarks of scale take a small run through all of their stages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def result(script: str, folder: Path, *arguments: str) -> dict:
    command = [sys.executable, str(BENCHMARKS / script), *arguments, "--json", str(folder / "out.json")]
    subprocess.run(command, capture_output=True, check=True, env={**os.environ, "RAY_AUTH_MODE": "disabled"})
    return json.loads((folder / "out.json").read_text())


def test_each_step_of_safety_has_its_cost(tmp_path):
    found = result("cost_of_safety.py", tmp_path, "--samples", "300", "--rounds", "1")

    assert len(found["microseconds_an_image"]) == 5
    assert all(cost > 0 for cost in found["microseconds_an_image"].values())


@pytest.mark.slow
@pytest.mark.parametrize("listed", [[], ["--listed"]])
def test_each_stage_of_a_run_is_timed(tmp_path, listed):
    rows = result("scale.py", tmp_path, "--shards", "6", "--folder", str(tmp_path), *listed)["rows"]

    stages = ["schedule", "scan of half", "start again"] if listed else ["work", "scan of half", "start again"]
    assert [row["stage"] for row in rows] == ["plan", *stages, *([] if listed else ["stats", "verify"])]
    assert {row["stage"]: row.get("left") for row in rows}["scan of half"] == 12
    assert not list(tmp_path.glob("tmp*"))


@pytest.mark.slow
def test_a_unit_reads_fewer_bytes_by_the_index(tmp_path):
    found = result("bytes_per_sample.py", tmp_path, "--samples", "40", "--unit", "10", "--kib", "20")

    assert found["units, by the index"]["bytes_a_sample"] < found["units, each after a walk"]["bytes_a_sample"]
