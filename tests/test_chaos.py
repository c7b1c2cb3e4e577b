"""Whatever is killed, and however often the store fails, a job ends in the same bytes: nothing lost, nothing over."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import COLOURS, NAMES, build_fakes, job_config, write_shard

from capfilt.runs import load_run
from capfilt.verify import verify
from pipelines import bootstrap

TESTS = Path(__file__).parent


def write_input(folder: Path, shards: int, samples: int, *, poison: bool) -> None:
    for shard in range(shards):
        content: list[tuple[str | bytes, str]] = [(COLOURS[n % 3], f"my {COLOURS[n % 2]} car") for n in range(samples)]
        content[shard] = (b"no image", "")
        if poison and shard == 1:
            content[5] = ("white", "snow")  # kills its worker
        write_shard(folder / f"in/{shard:05d}.tar", content)


def run_chaos(folder: Path, kills: int, nodes: int, rate: float) -> dict[str, Any]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS / "chaos"), str(TESTS), str(TESTS.parent)]),
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "FLAKY_RATE": str(rate),
        "FLAKY_NOTES": str(folder / "faults"),
        "FLAKY_STAGING": str(folder / "staging"),
    }
    command = [sys.executable, str(TESTS / "chaos/run.py"), str(folder), str(kills), str(nodes), "0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr + (folder / "log").read_text()
    return json.loads(done.stdout.splitlines()[-1])


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a run but its journal's, which each driver has of its own; some count by their names alone.

    Those are the files that hold times or paths.
    """
    root = folder / "run"
    files = {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    told = (".json", "run.yaml", "plan/shards.parquet", ".index")
    found = {name: b"" if name.endswith(told) else data for name, data in files.items()}
    return {
        name: data for name, data in found.items() if not name.startswith("journal")
    }  # as many as there were drivers


def test_a_few_kills_and_faults_of_the_store_change_no_byte(tmp_path):
    for name in ("calm", "wild"):
        write_input(tmp_path / name, shards=2, samples=24, poison=False)
    bootstrap.run(job_config(tmp_path / "calm", export=True), build_fakes, NAMES, local=True)

    result = run_chaos(tmp_path / "wild", kills=2, nodes=0, rate=0.003)

    assert set(result["killed"]) == {"actor", "driver"}
    assert content(tmp_path / "wild") == content(tmp_path / "calm")
    assert verify(load_run(f"{tmp_path}/wild/run")) == []


@pytest.mark.slow
def test_many_kills_of_actors_drivers_and_nodes_change_no_byte_and_blame_no_sample(tmp_path, capsys):
    """One sample kills its worker for real; it alone is quarantined, in the calm run and in the wild one."""
    results = {}
    for name, kills, rate in (("calm", 0, 0.0), ("wild", 32, 0.003)):
        write_input(tmp_path / name, shards=28, samples=40, poison=True)  # enough on a quick machine, too
        results[name] = run_chaos(tmp_path / name, kills, nodes=2, rate=rate)
    with capsys.disabled():
        sys.stdout.write(f"\nundisturbed: {results['calm']}\ndisturbed:   {results['wild']}\n")

    assert content(tmp_path / "wild") == content(tmp_path / "calm")
    assert verify(load_run(f"{tmp_path}/wild/run")) == []
    assert [path.name for path in (tmp_path / "wild/run/quarantine").rglob("*.json")] == ["00000005.json"]
    assert sum(results["wild"]["killed"].values()) >= 20
    assert set(results["wild"]["killed"]) == {"actor", "driver", "node"}
    assert results["wild"]["faults"] > 0
