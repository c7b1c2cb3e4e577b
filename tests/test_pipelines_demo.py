import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from dry_runs import dry_run

from capfilt.cli import cli
from capfilt.config import load
from capfilt.config.demo import DemoConfig
from capfilt.med.checkpoints import load as read
from capfilt.runs.lease import hold_lease
from capfilt.runs.stop import request_stop
from pipelines import demo

TINY = Path(__file__).parent.parent / "configs" / "tiny" / "demo.yaml"


@pytest.mark.usefixtures("ray_cluster")
def test_the_demo_runs_to_its_end_and_again_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the shipped configs name their output relative to where they are run
    config = load(DemoConfig, TINY, ["output=demo", "seed=1"])
    said: list[str] = []

    figures = demo.run(config, said.append)

    # 24 scenes were tried, some downloads failed, and each image has one caption and at most one web text.
    verdicts = figures["verdicts"]
    texts = {source: sum(counts.values()) for source, counts in verdicts.items()}
    assert 20 <= texts["synthetic"] <= 24
    assert texts["web"] <= texts["synthetic"]
    assert any("Against the truth, on" in line for line in said)

    again = demo.run(config, said.append)
    assert again["verdicts"] == verdicts
    dry = CliRunner().invoke(cli, ["demo", str(TINY), "--set", "output=demo", "--set", "seed=1", "--dry-run"])
    assert (dry.exit_code, dry.output.count("is done")) == (0, 4), dry.output

    victim = next(Path("demo/runs/web/clean").rglob("*.tar"))
    data = victim.read_bytes()
    victim.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    refused = CliRunner().invoke(cli, ["demo", str(TINY), "--set", "output=demo", "--set", "seed=1"])
    assert refused.exit_code == 1, refused.output
    assert victim.name in refused.output.splitlines()[-1]
    assert refused.output.endswith("; remove demo/runs/web, and run the demo again\n")


def test_a_split_whose_rendering_was_interrupted_is_rendered_again(tmp_path, monkeypatch):
    """Else all models would be trained on the shards that were there by chance."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo.pretrain, "run", interrupt)
    words = ["demo", str(TINY), "--set", f"output={tmp_path / 'demo'}", "--set", "human_samples=1001"]
    with monkeypatch.context() as patch:
        patch.setattr("capfilt.world.shards.pq.write_table", interrupt)  # of the first shard, whose tar is there
        told = CliRunner().invoke(cli, words)
    CliRunner().invoke(cli, words)

    assert (told.exit_code, told.output.splitlines()[-1]) == (1, "ended at once; run the same again to go on")
    names = {file.name for file in (tmp_path / "demo/human").iterdir()}
    assert names == {f"{shard:05d}{end}" for shard in range(3) for end in (".parquet", ".tar", "_stats.json")}


@pytest.mark.usefixtures("ray_cluster")
def test_with_shared_vision_both_models_have_the_captioners_tower(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demo.run(load(DemoConfig, TINY, ["output=demo", "shared_vision=true"]), lambda line: None)
    towers = [read(Path(f"demo/{role}/checkpoint")).model.vision.state_dict() for role in ("captioner", "filter")]
    assert all(tensor.equal(towers[1][name]) for name, tensor in towers[0].items())


@pytest.mark.parametrize(("asked", "left"), [("pretrained", "captioner"), ("captioner", "filter")])
def test_a_job_that_ends_before_it_can_stop_is_the_last(tmp_path, monkeypatch, asked, left):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("capfilt.runs.stop.POLL", 600)  # a request comes too late for the job
    folder = Path("demo-tiny", asked)

    def ask() -> None:
        deadline = time.monotonic() + 60
        while not (folder / "lease.json").exists():
            assert time.monotonic() < deadline, "the job does not begin"
            time.sleep(0.01)
        request_stop(str(folder))

    asking = threading.Thread(target=ask)
    asking.start()
    told = CliRunner().invoke(cli, ["demo", str(TINY)])
    asking.join()
    assert (told.exit_code, (folder / "checkpoint/config.json").exists()) == (4, True), told.output
    assert "demo-tiny: goes on with 3 of 6" in told.output
    assert not Path("demo-tiny", left).exists()


def test_a_dry_run_tells_its_steps_and_writes_nothing(tmp_path):
    told = dry_run(tmp_path, "demo", TINY, "--set", f"output={tmp_path}/demo")
    assert told.exit_code == 0, told.output
    assert [line.split(":")[0] for line in told.output.splitlines() if " trains " in line] == [
        f"  trains      {name}" for name in ("pretrained", "captioner", "filter", "retrained")
    ]


def test_a_demo_is_refused_while_another_renders_into_the_same_folder(tmp_path):
    folder, words = tmp_path / "demo", ["demo", str(TINY), "--set", f"output={tmp_path}/demo"]
    with hold_lease(str(folder)):
        refused, dry = (CliRunner().invoke(cli, [*words, *more]) for more in ([], ["--dry-run"]))
        assert [path.name for path in folder.iterdir()] == ["lease.json"]
    for told in (refused, dry):
        assert (told.exit_code, "another driver is at work" in told.output) == (1, True), told.output
