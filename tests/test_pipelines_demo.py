from pathlib import Path

import pytest

from capfilt.config import load
from capfilt.config.demo import DemoConfig
from pipelines import demo

TINY = Path(__file__).parent.parent / "configs" / "tiny" / "demo.yaml"


@pytest.mark.usefixtures("ray_cluster")
def test_the_demo_runs_to_its_end_and_again_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the shipped configs name their output relative to where they are run
    config = load(DemoConfig, TINY, ["output=demo", "seed=1"])
    said: list[str] = []

    figures = demo.run(config, said.append)

    assert figures["problems"] == []
    # 24 scenes were tried, some downloads failed, and each image has one caption and at most one web text.
    verdicts = figures["verdicts"]
    texts = {source: sum(counts.values()) for source, counts in verdicts.items()}
    assert 20 <= texts["synthetic"] <= 24
    assert texts["web"] <= texts["synthetic"]
    assert any("Against the truth, on" in line for line in said)

    again = demo.run(config, said.append)
    assert again["verdicts"] == verdicts
