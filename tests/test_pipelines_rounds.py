"""Turns of the loop on the shipped tiny configs: real training, real bootstraps, one after the other."""

import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from dry_runs import dry_run, tree
from head import start_head

from capfilt.cli import cli
from capfilt.config import load
from capfilt.config.rounds import RoundsConfig
from capfilt.config.training import PretrainConfig
from capfilt.errors import StoppedError
from capfilt.med.checkpoints import checkpoint_hash
from capfilt.med.tokenizer import SPECIAL
from capfilt.rounds import rounds
from capfilt.runs import load_run
from capfilt.runs.lease import find_driver, hold_lease
from capfilt.runs.status import keep_status
from capfilt.runs.stop import request_stop
from capfilt.verify import verify
from capfilt.world.noise import NoiseRates
from capfilt.world.shards import World, write_world
from capfilt.world.vocabulary import vocabulary
from pipelines import pretrain
from pipelines import rounds as job
from pipelines.rounds import run
from workers.submission import prepare

CONFIGS = Path(__file__).parent.parent / "configs"
JOBS = ("captioner", "filter", "bootstrap", "pretrain")


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Path:
    """A folder with a small world, a MED that was trained on it, and the shipped configs."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("loop")
    shutil.copytree(CONFIGS / "tiny", folder / "configs" / "tiny")
    for path in folder.glob("configs/tiny/*.yaml"):  # an epoch shows as much as five
        path.write_text(re.sub(r"epochs: \d+", "epochs: 1", path.read_text()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the shipped configs name their outputs relative to where they are run
        write_world(Path("demo-tiny/human"), World(0, "human", None, 64), 32, 500)
        write_world(Path("demo-tiny/web"), World(0, "web", NoiseRates(), 64), 16, 8)
        Path("demo-tiny/vocab.txt").write_text("\n".join([*SPECIAL, *vocabulary()]) + "\n")
        pretrain.run(load(PretrainConfig, Path("configs/tiny/pretrain.yaml")))
    return folder


@pytest.fixture
def loop(started, tmp_path, monkeypatch) -> Path:
    """A copy of that folder, which is the current one."""
    shutil.copytree(started, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("configs/tiny/rounds.yaml")


def command(loop: Path, *overrides: str) -> Result:
    return CliRunner().invoke(cli, ["rounds", str(loop), *(word for each in overrides for word in ("--set", each))])


def wait_for(file: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} does not come"
        time.sleep(0.01)


def change(name: str, **values: object) -> None:
    path = Path(f"configs/tiny/{name}.yaml")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))


@pytest.mark.usefixtures("ray_cluster")
def test_each_round_starts_from_the_model_of_the_one_before(loop, tmp_path):
    place = "output=tiny rounds"
    first = command(loop, place, "rounds=1")
    assert first.exit_code == 0, first.output
    assert first.output.splitlines()[-2:] == [
        "next: capfilt stats 'tiny rounds/round-0/bootstrap'",
        "checkpoint: tiny rounds/round-0/pretrain/checkpoint",
    ]
    told = dry_run(tmp_path, "rounds", loop, "--set", place)
    assert told.output.count("is done") == 4
    assert "round 1, captioner  run: starts at step 0" in told.output

    before = tree(Path("tiny rounds/round-0/captioner"))
    shown = capfilt("status", "tiny rounds").output.splitlines()
    assert shown[0].endswith("/tiny rounds: done")
    assert shown[1:3] == [
        "  at        round-0/pretrain; 4 of 4 jobs are done",
        f"{tmp_path}/tiny rounds/round-0/pretrain: done",
    ]
    assert [line.split()[0] for line in shown[3:]] == ["steps", "losses"]

    bootstrapped = Path("tiny rounds/round-0/bootstrap")
    with hold_lease(str(bootstrapped)), keep_status(str(bootstrapped)):
        kept = {name: (bootstrapped / name).read_bytes() for name in ("lease.json", "status.json")}
    for name, data in kept.items():  # as a driver leaves them that dies when all is done
        (bootstrapped / name).write_bytes(re.sub(rb'"renewed": [\d.]+', b'"renewed": 0', data))
    assert "died" in capfilt("status", str(bootstrapped)).output

    both = command(loop, place)
    assert both.exit_code == 0, both.output
    assert capfilt("status", str(bootstrapped)).output.splitlines()[0].endswith("/bootstrap: done")
    assert find_driver(str(bootstrapped)) is None
    assert "next: capfilt compare 'tiny rounds/round-0/bootstrap' 'tiny rounds/round-1/bootstrap'" in both.output
    assert tree(Path("tiny rounds/round-0/captioner")) == before  # what is done is not done again

    human = json.loads(Path("tiny-pretrain/data.json").read_text())["samples"]
    hashes = set()
    for number in (0, 1):
        folder = Path(f"tiny rounds/round-{number}")
        run = load_run(f"{folder}/bootstrap").config()
        assert run.round == number
        assert [run.captioner, run.filter] == [f"{folder}/{role}/checkpoint" for role in ("captioner", "filter")]
        hashes |= {checkpoint_hash(folder / job / "checkpoint") for job in JOBS if job != "bootstrap"}
        kept = sum(pq.read_metadata(path).num_rows for path in folder.glob("bootstrap/clean/*/0*.parquet"))
        assert 0 < kept <= 16
        assert json.loads((folder / "pretrain" / "data.json").read_text())["samples"] == human + kept
    assert len(hashes) == 6  # no round is a copy of another
    started_from = yaml.safe_load(Path("tiny rounds/round-1/filter/config.yaml").read_text())["checkpoint"]
    assert started_from == "tiny rounds/round-0/pretrain/checkpoint"

    submitted = prepare("rounds", load(RoundsConfig, loop, [place])).config  # its folder has an absolute path
    dry = job.dry_run(submitted)
    assert dry.problems == []
    assert [fact for _, fact in dry.facts] == ["is done"] * 8

    change("bootstrap", sampling={"top_p": 0.5})
    change("finetune_captioner", seed=1)
    told = dry_run(tmp_path, "rounds", loop, "--set", place)
    assert told.exit_code == 1
    assert "round-0/captioner/config.yaml: holds 'seed: 0' where 'seed: 1' was given" in told.output
    assert "problem: tiny rounds/round-0/bootstrap: this folder holds a run of other settings" in told.output
    assert told.output.count("is done") == 4


def test_a_job_that_ends_before_it_can_stop_is_the_last(loop, monkeypatch):
    monkeypatch.setattr("capfilt.runs.stop.POLL", 600)  # a request comes too late for the job
    folder = Path("tiny-rounds/round-0/captioner")

    def ask() -> None:
        wait_for(folder / "lease.json")
        request_stop(str(folder))

    asking = threading.Thread(target=ask)
    asking.start()
    told = command(loop)
    asking.join()
    assert (told.exit_code, (folder / "checkpoint/config.json").exists()) == (4, True)
    assert "tiny-rounds: goes on with round 0, filter" in told.output
    assert not Path("tiny-rounds/round-0/filter").exists()


def long_training(name: str) -> None:
    """Let a fine-tuning take minutes, if nobody stops it, and look for a request at each step."""
    schedule = yaml.safe_load(Path(f"configs/tiny/{name}.yaml").read_text())["schedule"]
    change(name, schedule=schedule | {"epochs": 10_000}, tracking={"every": 1, "tensorboard": False})


def ask_when_trained(folder: Path, *words: str) -> threading.Thread:
    """Stop the loop, from another thread, as soon as a job of it has taken a step."""

    def ask() -> None:
        wait_for(folder / "metrics.jsonl")
        Path("told").write_text(capfilt("status", "tiny-rounds").output + capfilt("stop", "tiny-rounds", *words).output)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def capfilt(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def left_behind() -> set[str]:
    return {path.name for path in Path("tiny-rounds").rglob("*.json")} & {"stop.json", "lease.json"}


def test_a_loop_that_is_asked_to_stop_lets_its_job_stop_in_good_order(loop, monkeypatch):
    monkeypatch.setattr("capfilt.runs.stop.POLL", 0.02)
    long_training("finetune_filter")
    folder = Path("tiny-rounds/round-0/filter")
    asking = ask_when_trained(folder)
    ended = command(loop)
    asking.join()

    assert ended.exit_code == 4, ended.output
    assert "round-0/filter: goes on from the state of step" in ended.output
    assert list((folder / "states").iterdir())
    assert left_behind() == set()
    told = Path("told").read_text()
    place = Path("tiny-rounds").absolute()
    assert re.match(
        rf"{place}: running\n  driver .*\n  at        round-0/filter; 1 of 8 jobs are done\n{place}/round-0/filter: "
        rf"running\n(.*\n)+{place}: pid .* finishes what is in hand\n",
        told,
    ), told
    assert capfilt("status", "tiny-rounds").output.startswith(f"{place}: stopped as asked; run the same again to go on")


def test_a_request_between_two_jobs_is_not_lost(loop, monkeypatch):
    monkeypatch.setattr("capfilt.runs.stop.POLL", 0.02)
    long_training("finetune_filter")

    def say(text: str) -> None:
        if text == "round 0, filter":
            assert find_driver("tiny-rounds/round-0/captioner") is find_driver("tiny-rounds/round-0/filter") is None
            assert capfilt("stop", "tiny-rounds").exit_code == 0

    with pytest.raises(StoppedError):
        run(load(RoundsConfig, loop), say)
    assert not Path("tiny-rounds/round-0/filter/checkpoint").exists()
    assert left_behind() == set()


def test_a_loop_that_is_to_end_at_once_does(loop, monkeypatch):
    monkeypatch.setattr("capfilt.runs.stop.POLL", 0.02)
    long_training("finetune_captioner")
    asking = ask_when_trained(Path("tiny-rounds/round-0/captioner"), "--now")
    ended = command(loop)
    asking.join()

    assert ended.exit_code == 143, ended.output
    assert "ends at once" in Path("told").read_text()
    assert left_behind() == set()
    assert "ended at once" in capfilt("status", "tiny-rounds").output


def test_a_second_driver_of_a_loop_is_refused(loop, tmp_path):
    with hold_lease("tiny-rounds"):
        told = command(loop)
        assert (told.exit_code, "another driver is at work on this run" in told.output) == (1, True)
        told = dry_run(tmp_path, "rounds", loop)
        assert (told.exit_code, "another driver is at work on this run" in told.output) == (1, True)
    assert not Path("tiny-rounds/round-0").exists()


def test_settings_of_jobs_may_stand_in_the_loops_own(loop):
    names = {"captioner": "finetune_captioner", "filter": "finetune_filter"}
    names |= {"bootstrap": "bootstrap", "pretrain": "pretrain_clean"}
    files = load(RoundsConfig, loop)
    jobs = {key: yaml.safe_load(Path(f"configs/tiny/{name}.yaml").read_text()) for key, name in names.items()}
    loop.write_text(yaml.safe_dump(files.model_dump() | jobs))

    assert rounds(load(RoundsConfig, loop)) == rounds(files)
    assert rounds(load(RoundsConfig, loop, ["captioner.seed=7"]))[1].captioner.seed == 7
    told = command(loop, "pretrain.data.sources=null", "pretrain.data.shards=[demo-tiny/human]")
    assert told.output.startswith("Error: pretrain: ")


def test_a_dry_run_looks_at_the_job_that_comes_next(loop, tmp_path):
    told = dry_run(tmp_path, "rounds", loop)
    assert told.exit_code == 0, told.output
    assert "is done" not in told.output
    assert "round 0, captioner  run: starts at step 0" in told.output
    assert [line.split("  ")[1] for line in told.output.splitlines() if line.endswith("follows")] == [
        f"round {number}, {job}" for number in (0, 1) for job in JOBS
    ][1:]

    shutil.rmtree("demo-tiny/human")
    told = dry_run(tmp_path, "rounds", loop)
    assert told.exit_code == 1
    assert "problem: round 0, captioner: data.shards: demo-tiny/human" in told.output


def test_a_filter_with_the_captioners_tower_gets_that_of_its_round(loop):
    change("finetune_filter", vision_from="{captioner}", device={"kind": "cpu"})
    turns = rounds(load(RoundsConfig, loop))
    assert [turn.filter.vision_from for turn in turns] == [
        f"tiny-rounds/round-{number}/captioner/checkpoint" for number in (0, 1)
    ]


def test_weights_and_parts_of_sources_stay(loop):
    sources = [{"shards": ["demo-tiny/human"], "weight": 1}, {"shards": ["{clean}"], "weight": 3, "parts": 2}]
    change("pretrain_clean", data={"sources": sources})
    human, clean = rounds(load(RoundsConfig, loop))[1].pretrain.data.sources
    assert (human.shards, human.weight, clean.weight, clean.parts) == (["demo-tiny/human"], 1, 3, 2)
    [place] = clean.shards
    assert "/tiny-rounds/round-1/bootstrap/clean/all-" in place


def test_shards_in_short_may_name_the_clean_ones(loop):
    change("pretrain_clean", data={"shards": ["demo-tiny/human", "{clean}"]})
    [source] = rounds(load(RoundsConfig, loop))[0].pretrain.data.mixture()
    assert source.shards[0] == "demo-tiny/human"
    assert "/round-0/bootstrap/clean/all-" in source.shards[1]


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "pretrain_clean",
            {"data": {"shards": ["demo-tiny/human"]}},
            "configs/tiny/pretrain_clean.yaml: no {clean} among its shards; put it where the clean shards of a round "
            "belong",
        ),
        (
            "bootstrap",
            {"export": False},
            "configs/tiny/bootstrap.yaml: export: false, but the loop trains on clean shards; set export: true",
        ),
        (
            "finetune_captioner",
            {"role": "filter"},
            "configs/tiny/finetune_captioner.yaml: role: filter, where the loop takes a captioner; give another file",
        ),
        (
            "bootstrap",
            {"batchsize": 8},
            "configs/tiny/bootstrap.yaml: batchsize: unknown key; did you mean batch_size?",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_before_anything_is_done(loop, name, values, message):
    change(name, **values)
    told = command(loop)
    assert (told.exit_code, told.output) == (1, f"Error: {message}\n")
    assert not Path("tiny-rounds").exists()


def test_a_file_that_is_not_there_is_named(loop):
    told = command(loop, "bootstrap=nowhere.yaml")
    assert told.exit_code == 1
    assert told.output.startswith("Error: nowhere.yaml: cannot be read: ")


def test_what_is_neither_a_file_nor_keys_is_told_in_one_line(loop):
    told = command(loop, "bootstrap=3")
    assert told.exit_code == 1
    assert re.fullmatch(
        r"Error: \S+: bootstrap: give the path of the job's file, or the job's keys \(found 3\)\n", told.output
    )


@pytest.mark.parametrize("folder", ["a folder: with #signs", "t'", "🐑"])
def test_any_path_will_do(loop, folder):
    turn = rounds(load(RoundsConfig, loop).model_copy(update={"output": folder}))[0]
    assert turn.filter.output == f"{folder}/round-0/filter"
    assert turn.bootstrap.run == f"{folder}/round-0/bootstrap"


@pytest.mark.slow
def test_a_loop_is_submitted_stopped_resumed_killed_and_done(loop, tmp_path, monkeypatch):
    with start_head(tmp_path) as url:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
        names = ("finetune_captioner", "finetune_filter", "bootstrap", "pretrain_clean")
        files = {name: Path(f"configs/tiny/{name}.yaml").read_text() for name in names}

        def submit() -> str:
            for name, text in files.items():
                Path(f"configs/tiny/{name}.yaml").write_text(text)
            change("bootstrap", cluster={"workers": 1, "cpus_per_worker": 0.5})
            words = ("submit", "rounds", str(loop), "--set", "rounds=1", "--python", sys.executable)
            told = capfilt(*words)
            assert told.exit_code == 0, told.output
            for name in files:  # the head has no such files
                Path(f"configs/tiny/{name}.yaml").unlink()
            return told.output

        def state() -> dict[str, Any]:
            shown = capfilt("status", "tiny-rounds", "--json")
            return json.loads(shown.output) if shown.exit_code == 0 else {"state": None, "jobs": []}

        def wait_until(condition: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 300
            while not condition():
                assert time.monotonic() < deadline, capfilt("logs", "tiny-rounds", "--address", url).output
                time.sleep(0.3)

        name = re.match(r"submitted (capfilt-rounds-tiny-rounds-[0-9a-f]{12}-)1\n", submit())[1]
        wait_for(Path("tiny-rounds/round-0/captioner/lease.json"), 300)
        assert capfilt("stop", "tiny-rounds", "--wait").exit_code == 0
        wait_until(lambda: state()["jobs"][0]["state"] == "STOPPED")
        assert not Path("tiny-rounds/round-0/filter").exists()
        assert left_behind() == set()

        assert f"submitted {name}2\n" in submit()
        wait_for(Path("tiny-rounds/round-0/bootstrap/lease.json"), 300)
        os.kill(state()["driver"]["pid"], signal.SIGKILL)
        wait_until(lambda: state()["jobs"][0]["state"] in ("SUCCEEDED", "FAILED"))
        log = capfilt("logs", "tiny-rounds", "--address", url).output
        assert "the driver was killed by signal 9; it is restarted in 5 s" in log
        assert state()["jobs"][0]["state"] == "SUCCEEDED", log
        assert (state()["state"], state()["progress"]["jobs_done"]) == ("done", 4)
        assert verify(load_run("tiny-rounds/round-0/bootstrap")) == []
        assert Path("tiny-rounds/round-0/pretrain/checkpoint/config.json").exists()
