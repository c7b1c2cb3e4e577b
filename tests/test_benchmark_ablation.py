"""The ablation takes a small world through all four of its cuts, and measures the model of each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from capfilt.config import Policy
from capfilt.config.demo import DemoConfig
from capfilt.config.loading import dump, load

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_a_model_is_trained_and_measured_on_each_cut(tmp_path):
    tiny = load(DemoConfig, ROOT / "configs" / "tiny" / "demo.yaml")
    world = tiny.model_copy(update={"policy": Policy(web_itm=0.0, synthetic_itm=0.0)})  # else such a filter drops all
    (tmp_path / "demo.yaml").write_text(dump(world))
    sizes = ["--web", "40", "--test", "30", "--steps", "2", "--demo", str(tmp_path / "demo.yaml")]
    command = [sys.executable, str(ROOT / "benchmarks" / "ablation.py"), "--work", str(tmp_path / "work"), *sizes]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    subprocess.run([*command, "--json", str(tmp_path / "out")], capture_output=True, check=True, env=environment)

    found = json.loads((tmp_path / "out").read_text())
    cuts = [found[name] for name in ("web", "web, filtered", "web and captions", "web and captions, filtered")]
    assert all(0 <= cut["captions_true"] <= 1 and 0 < cut["auc_itc"] < 1 for cut in cuts)
    assert cuts[0]["texts"] == cuts[1]["texts"] == cuts[0]["images"]
    assert cuts[2]["texts"] == cuts[3]["texts"] == 2 * cuts[0]["texts"]
