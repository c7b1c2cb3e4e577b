"""The commands recut and calibrate, as they are typed."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from ledgers import SHARD, complete, exported_run, new_run, record, synthetic, web

from capfilt.cli import cli
from capfilt.config import Policy, load
from capfilt.records import Candidate, Shard
from capfilt.runs import load_policy


def capfilt(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture
def run(tmp_path) -> str:
    return exported_run(tmp_path)[0].root


def folders(run: str) -> int:
    return len(list(Path(run, "clean").iterdir()))


def test_a_dry_run_shows_the_difference_and_writes_nothing(run):
    result = capfilt("recut", run, "--set", "web_itm=0.95", "--dry-run")

    assert result.exit_code == 0, result.output
    assert "web_itm: 0.5 before, 0.95 after" in result.output
    assert "lost, for example" in result.output
    assert folders(run) == 1


def test_recut_writes_clean_shards_beside_the_others(run):
    result = capfilt("recut", run, "--set", "web_itm=0.95", "--json")

    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["sources"]["web"] == {"scored": 4, "kept_before": 2, "kept_after": 0, "gained": 0, "lost": 2}
    assert found["written"].startswith("2 clean shards with 4 samples and 4 texts in ")
    assert folders(run) == 2
    assert "every sample is accounted for" in capfilt("verify", run).output


def test_the_difference_is_there_even_if_its_shards_are_not_all_written(tmp_path):
    run = new_run(tmp_path, [SHARD, Shard("00001", "in/00001.tar", 1000, "d16e57", 1)])
    complete(run, SHARD, [record(n) for n in range(SHARD.samples)], [web(0, 0.9)])

    dry = capfilt("recut", run.root, "--set", "web_itm=0.95", "--dry-run", "--json")
    assert (dry.exit_code, json.loads(dry.stdout)["sources"]["web"]["lost"]) == (1, 1)
    assert "in/00001.tar: its ledger is not complete; bootstrap again" in json.loads(dry.stdout)["problems"]

    real = capfilt("recut", run.root, "--set", "web_itm=0.95", "--json")
    assert (real.exit_code, json.loads(real.stdout)["written"]) == (3, None)


def test_recut_compares_with_another_policy(run, tmp_path):
    (tmp_path / "all.yaml").write_text("name: all\nweb_itm: 0\nsynthetic_itm: 0\n")

    result = capfilt("recut", run, "--set", "name=own", "--against", tmp_path / "all.yaml", "--dry-run", "--json")

    found = json.loads(result.output)
    assert (found["before"], found["after"], found["written"]) == ("all", "own", None)
    assert {move["after"] for move in found["moves"]} == {"low_itm"}


def test_a_policy_is_also_read_from_the_folder_that_was_written_under_it(run, tmp_path):
    assert capfilt("recut", run, "--set", "web_itm=0.95", "--set", "name=strict").exit_code == 0
    (written,) = Path(run, "clean").glob("strict-*/policy.yaml")

    options = ["--policy", written, "--set", "min_words=2", "--against", written, "--dry-run", "--json"]
    found = json.loads(capfilt("recut", run, *options).output)
    assert (found["before"], found["after"]) == ("strict", "strict")
    assert load_policy(written, ["min_words=2"]) == Policy(name="strict", web_itm=0.95, min_words=2)
    for command in ("stats", "inspect", "calibrate"):
        assert "unknown key" not in capfilt(command, run, "--policy", written).output
    assert "policy strict" in capfilt("stats", run, "--policy", written).output


def test_recut_without_a_policy_is_a_wrong_command_line(run):
    result = capfilt("recut", run)

    assert result.exit_code == 2
    assert "--policy FILE, or --set KEY=VALUE" in result.output


def test_a_misspelt_key_is_refused_with_the_right_one(run):
    result = capfilt("recut", run, "--set", "web_it=0.95")

    assert result.exit_code == 1
    assert f"policy of {run}: web_it: unknown key; did you mean web_itm?" in result.output
    nested = capfilt("recut", run, "--set", "policy.web_itm=0.7").output  # as export takes it
    assert f"policy of {run}: policy: unknown key; did you mean web_itm?" in nested


def test_calibrate_writes_a_policy_that_recut_takes(tmp_path):
    shard = Shard("00000", "in/00000.tar", 1000, "d16e57", 100)
    run = new_run(tmp_path, [shard])
    controls = [Candidate(n, f"key{n}", "control", 0, "foreign", itm=n / 200) for n in range(100)]
    rows = sorted([*(web(n, n / 100) for n in range(100)), *controls], key=lambda row: row.position)
    complete(run, shard, [record(n) for n in range(100)], rows)
    output = tmp_path / "a folder that is not there" / "new.yaml"

    result = capfilt("calibrate", run.root, "--error", "0.1", "--output", output)

    assert result.exit_code == 0, result.output
    assert "proposed: web_itm: 0.4451" in result.output
    assert load(Policy, output).web_itm == 0.4451
    assert yaml.safe_load(output.read_text())["name"] == "calibrated"
    recut = json.loads(capfilt("recut", run.root, "--policy", output, "--dry-run", "--json").output)
    assert recut["sources"]["web"] == {"scored": 100, "kept_before": 50, "kept_after": 55, "gained": 5, "lost": 0}


def test_calibrate_without_controls_says_so_in_one_line(run):
    result = capfilt("calibrate", run)

    assert result.exit_code == 1
    assert "no control pairs" in result.output
    assert result.output.count("\n") == 1


@pytest.fixture
def controlled(tmp_path) -> str:
    """A run of four samples whose control texts score 0.1, 0.2, 0.3 and 0.4."""
    run = new_run(tmp_path)
    texts = []
    for n in range(4):
        kinds = ({"caption_index": 0}, {"caption_index": 1, "captioner": "c0ffee"})
        controls = [Candidate(n, f"key{n}", "control", text="of another", itm=(n + 1) / 10, **kind) for kind in kinds]
        texts += [web(n, 0.35), synthetic(n, 0.9), *controls]
    complete(run, SHARD, [record(n) for n in range(4)], texts)
    return run.root


def test_what_calibrate_ends_with_can_be_typed(controlled):
    last = capfilt("calibrate", controlled, "--error", 0.25).output.splitlines()[-1]

    told, line = last.split(": capfilt ", 1)
    assert told == "see what it changes"
    assert line == f"recut {controlled} --set web_itm=0.3001 --set synthetic_itm=0.3001 --dry-run"
    changed = json.loads(capfilt(*shlex.split(line), "--json").output)
    assert (changed["sources"]["web"]["gained"], changed["written"]) == (4, None)


def test_what_calibrate_ends_with_leaves_the_texts_of_people_as_its_policy_does(tmp_path):
    run = new_run(tmp_path / "a folder")
    human = [Candidate(n, f"key{n}", "human", 0, "a text", itm=0.5) for n in range(4)]
    controls = [Candidate(n, f"key{n}", "control", 0, "of another", itm=(n + 1) / 10) for n in range(4)]
    rows = sorted([*human, *(web(n, 0.35) for n in range(4)), *controls], key=lambda row: row.position)
    complete(run, SHARD, [record(n) for n in range(4)], rows)
    policy = tmp_path / "my policy.yaml"
    policy.write_text("human_itm: 0.1\n")

    shown = capfilt("calibrate", run.root, "--error", 0.25, "--policy", policy, "--output", tmp_path / "new one.yaml")
    written = capfilt(*shlex.split(shown.output.splitlines()[-1].split(": capfilt ", 1)[1]), "--json")
    shown = capfilt("calibrate", run.root, "--error", 0.25, "--policy", policy)
    typed = capfilt(*shlex.split(shown.output.splitlines()[-1].split(": capfilt ", 1)[1]), "--json")

    changes = {"web_itm": [0.5, 0.3001], "human_itm": [0.0, 0.1]}
    assert json.loads(typed.output)["settings"] == changes
    assert json.loads(written.output)["settings"] == changes


def test_the_policy_that_calibrate_writes_is_the_one_that_recut_is_told_to_take(controlled, tmp_path):
    policy = tmp_path / "strict.yaml"

    last = capfilt("calibrate", controlled, "--error", 0.25, "--output", policy).output.splitlines()[-1]

    assert last == f"see what it changes: capfilt recut {controlled} --policy {policy} --dry-run"
    settings = json.loads(capfilt("recut", controlled, "--policy", policy, "--dry-run", "--json").output)["settings"]
    assert settings == {"web_itm": [0.5, 0.3001], "synthetic_itm": [0.5, 0.3001]}
