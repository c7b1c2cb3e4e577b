"""What capfilt plan says of a small job, and that it touches nothing of it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dry_runs import tree
from fakes import NAMES, build_fakes, build_nothing, job_config
from models import small_checkpoint

from capfilt.cli import cli
from capfilt.config import dump
from capfilt.errors import ConfigError, RunError
from capfilt.forecast import render_forecast
from capfilt.med.checkpoints import checkpoint_hash, save
from capfilt.runs.record import RunRecord
from pipelines import bootstrap, plan
from pipelines.plan import Options


def capfilt_plan(folder: Path, *arguments: str) -> Result:
    for seed, (name, decoder) in enumerate((("captioner", True), ("filter", False))):
        save(small_checkpoint(folder / "v", seed, encoder=not decoder, decoder=decoder), folder / name)
    models = {name: str(folder / name) for name in ("captioner", "filter")}
    (folder / "job.yaml").write_text(dump(job_config(folder, **models, export=True)))
    before = tree(folder)
    result = CliRunner().invoke(cli, ["plan", str(folder / "job.yaml"), *arguments])
    assert tree(folder) == before
    return result


def test_real_models_are_timed_and_nothing_is_written(folder):
    result = capfilt_plan(folder, "--images", "4", "--repeats", "2", "--price", "2", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["shards"] == {"all": 3, "looked_at": 3, "left_out": {}}
    assert told["samples_left"]["likely"] == 63
    assert 0 < told["hours"]["low"] <= told["hours"]["likely"] <= told["hours"]["high"]
    assert told["device_hours"]["likely"] == pytest.approx(told["hours"]["likely"])  # 2 workers of half a core each
    assert told["cost"]["likely"] == pytest.approx(2 * told["device_hours"]["likely"])
    assert set(told["kept"]) == {"synthetic", "web"}


def test_a_rehearsal_that_is_kept_is_a_run_to_look_at(folder, tmp_path_factory):
    kept = tmp_path_factory.mktemp("kept") / "a b"
    arguments = ["--images", "4", "--repeats", "2", "--keep", str(kept)]
    result = capfilt_plan(folder, *arguments)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"the rehearsal is kept: capfilt inspect '{kept}/run'"

    shown = CliRunner().invoke(cli, ["inspect", f"{kept}/run", "--json"])
    cards = [json.loads(line) for line in shown.output.splitlines()]
    assert len(cards) == 12  # a batch to warm up, and two repeats
    assert {text["source"] for card in cards for text in card["texts"]} == {"web", "synthetic"}
    whole = CliRunner().invoke(cli, ["verify", f"{kept}/run"])
    assert whole.exit_code == 0, whole.output
    hashes = RunRecord.read(f"{kept}/run").checkpoints
    assert hashes == {role: checkpoint_hash(folder / role) for role in ("captioner", "filter")}

    assert CliRunner().invoke(cli, ["status", f"{kept}/run"]).output.splitlines() == [
        f"{kept}/run: done",
        "  shards    1 of 1 complete",
    ]

    again = CliRunner().invoke(cli, ["plan", str(folder / "job.yaml"), *arguments])
    assert (again.exit_code, f"{kept}: is not empty" in again.output) == (1, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "kept", "--no-timing"], "--keep needs a rehearsal"),
        (["--keep", "kept", "--rate", "2"], "--keep needs a rehearsal"),
        (["--keep", "s3://bucket/kept"], "--keep s3://bucket/kept: give a folder of this machine"),
    ],
)
def test_a_rehearsal_that_cannot_be_kept_is_a_wrong_command_line(folder, options, words):
    (folder / "job.yaml").write_text(dump(job_config(folder)))

    result = CliRunner().invoke(cli, ["plan", str(folder / "job.yaml"), *options])

    assert (result.exit_code, words in result.output) == (2, True)


def test_without_timing_or_with_a_rate_no_model_is_loaded(folder):
    quick = capfilt_plan(folder, "--no-timing")
    assert quick.exit_code == 0, quick.output
    assert "images/s" not in quick.output
    (folder / "captioner/model.safetensors").unlink()
    rated = CliRunner().invoke(cli, ["plan", str(folder / "job.yaml"), "--rate", "2", "--price", "1"])
    assert rated.exit_code == 0, rated.output
    assert "2.00 images/s for a worker, as given" in rated.output


@pytest.mark.parametrize(("option", "value"), [("--rate", "inf"), ("--rate", "nan"), ("--price", "nan")])
def test_what_is_no_finite_number_is_a_wrong_command_line(folder, option, value):
    """A script that divides by zero gives one; the JSON of it would be none."""
    (folder / "job.yaml").write_text(dump(job_config(folder)))

    result = CliRunner().invoke(cli, ["plan", str(folder / "job.yaml"), "--rate", "1", option, value])

    assert (result.exit_code, f"{value} is not a finite number" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--rate", "1e-320"), ("--rate", "1e308"), ("--rate", "0"), ("--price", "1e308"), ("--price", "-1")],
)
def test_a_number_of_which_no_hours_and_no_cost_can_be_told_is_a_wrong_command_line(folder, option, value):
    (folder / "job.yaml").write_text(dump(job_config(folder)))

    result = CliRunner().invoke(cli, ["plan", str(folder / "job.yaml"), "--rate", "1", f"{option}={value}"])

    assert (result.exit_code, f"{float(value)} is not in the range" in result.output) == (2, True)


@pytest.mark.parametrize("rate", ["0.001", "1e6"])
def test_the_slowest_and_the_fastest_worker_are_told(folder, rate):
    (folder / "job.yaml").write_text(dump(job_config(folder)))
    job = [str(folder / "job.yaml"), "--rate", rate, "--price", "1e6"]
    assert CliRunner().invoke(cli, ["plan", *job]).exit_code == 0


def test_of_a_run_that_was_begun_the_rest_is_told(folder):
    config = job_config(folder)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    for path in Path(config.run, "ledger").glob("*/00001.*"):
        path.unlink()

    found = plan.run(config, build_fakes, lambda _: NAMES, Options(images=4, repeats=2))

    assert found.survey.samples_left.likely == 21
    assert found.survey.rest.done == 42


def test_a_run_that_is_done_takes_nothing_more(folder):
    config = job_config(folder)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    found = plan.run(config, build_nothing, lambda _: NAMES, Options())
    assert (found.survey.samples_left.likely, found.rehearsal) == (0, None)


def test_other_settings_than_those_of_the_run_are_refused(folder):
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    with pytest.raises(RunError, match="seed: 0 in the run, 5 here"):
        plan.run(job_config(folder, seed=5), build_fakes, lambda _: NAMES, Options())


def test_a_device_that_is_not_here_cannot_be_timed(folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = job_config(folder, device={"kind": "cuda", "dtype": "float32", "linear": "plain"})
    with pytest.raises(ConfigError, match=r"no GPU here; plan on a GPU node, or give --rate"):
        plan.run(config, build_fakes, lambda _: NAMES, Options())
    assert plan.run(config, build_fakes, lambda _: NAMES, Options(timing=False)).hours is None


def test_shards_that_cannot_be_used_are_named_and_not_counted(folder):
    shard = folder / "in/00001.tar"
    shard.write_bytes(shard.read_bytes()[:9000])
    found = plan.run(job_config(folder), build_fakes, lambda _: NAMES, Options(images=4, repeats=2))
    assert [each.url for each in found.survey.left_out] == [str(shard)]
    assert found.survey.samples_left.likely == 42
    assert list(found.to_json()["shards"]["left_out"]) == [str(shard)]
    assert f"\n  left out: {shard}: cut " in render_forecast(found)
