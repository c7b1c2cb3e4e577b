import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from ledgers import SHARD, commit, complete, new_run, record, synthetic, web

from capfilt.cli import cli


@pytest.fixture
def run(tmp_path):
    run = new_run(tmp_path)
    texts = [web(0, 0.9), synthetic(0, 0.1), synthetic(1, 0.6), web(3, 0.2)]
    complete(run, SHARD, [record(0), record(1), record(2, status="too_large"), record(3)], texts)
    return run.root


@pytest.fixture
def strict(tmp_path):
    path = tmp_path / "strict.yaml"
    path.write_text("name: strict\nweb_itm: 0.95\n")
    return str(path)


def call(*arguments, code=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_stats_shows_the_figures_and_json_holds_them(run):
    text, values = call("stats", run).stdout, json.loads(call("stats", run, "--json").stdout)

    assert "policy default" in text
    assert text.isascii()  # no terminal: plain bars
    assert values["sources"]["web"]["noise"] == 0.5
    assert values["texts"]["synthetic"]["duplicates"] == 0.5


def test_a_share_of_a_large_run_is_told_in_the_figures_and_on_standard_error(tmp_path, monkeypatch):
    shards = [replace(SHARD, id=f"{n:05d}", url=f"in/{n:05d}.tar", samples=1) for n in range(2)]
    folder = new_run(tmp_path, shards)
    for shard in shards:
        complete(folder, shard, [record(0)], [web(0, 0.9)])
    run = folder.root
    assert call("stats", run).stderr == ""
    monkeypatch.setattr("capfilt.query.opened.QUICK_SAMPLES", 1)
    told = "looking at 1 of 2 shards, drawn by their ids; --share 1 looks at all\n"

    result = call("stats", run)
    assert f"{run}: 1 of 2 shards, drawn by their ids, policy default" in result.stdout
    assert result.stderr == told
    for more in ([], ["--by", "source"]):
        assert json.loads(call("stats", run, "--json", *more).stdout)["share"] == 0.5
    assert call("stats", run, "--csv").stderr == call("inspect", run).stderr == told
    assert call("inspect", run, "--key", record(0).key).stderr == ""  # it may lie in any shard
    assert call("stats", run, "--share", "1").stderr == ""


def test_stats_takes_another_policy(run, strict):
    assert json.loads(call("stats", run, "--policy", strict, "--json").stdout)["sources"]["web"]["kept"] == 0


def test_stats_by_a_column_shows_its_parts(run):
    lines = call("stats", run, "--by", "source", "--where", "itm > 0.5").stdout.splitlines()

    assert [line.split()[:3] for line in lines[3:]] == [["synthetic", "1", "1"], ["web", "1", "1"], ["all", "2", "2"]]
    parts = json.loads(call("stats", run, "--by", "status", "--json").stdout)["parts"]
    assert [part["status"] for part in parts] == ["ok", "too_large"]


def test_csv_is_by_source_unless_told_otherwise(run):
    assert call("stats", run, "--csv").stdout.splitlines()[1].startswith("synthetic,2,1,0.5,")
    assert call("stats", run, "--csv", "--by", "shard").stdout.splitlines()[1].startswith("00000,4,2,0.5,")


def test_language_is_told_when_it_is_asked_for(run):
    parts = json.loads(call("stats", run, "--by", "language", "--json").stdout)["parts"]
    assert "en" in {part["language"] for part in parts}
    assert "language" not in call("stats", run, "--where", "skore > 1", code=1).stderr
    for name in ("language", "Language"):  # SQL does not tell them apart
        assert call("stats", run, "--where", f"{name} = 'en'").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--where", "skore > 1"), "Error: where 'skore > 1': there is no column skore; the columns are shard, "),
        (("--by", "skore"), "Error: by 'skore': a run is cut by one of source, captioner"),
    ],
)
def test_a_wrong_column_is_told_in_one_line(run, arguments, message):
    result = call("stats", run, *arguments, code=1)

    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_json_and_csv_exclude_each_other(run):
    assert "exclude each other" in call("stats", run, "--json", "--csv", code=2).stderr


def test_compare_shows_what_differs_between_runs_and_policies(run, strict):
    assert "100.0 %" in call("compare", run, run).stdout
    found = json.loads(call("compare", run, run, "--policy-second", strict, "--json").stdout)

    assert found["policies"] == ["default", "strict"]
    assert (found["matched"], found["sources"]["web"]["lost"]) == (4, 1)
    assert call("compare", run, run, "--policy", strict).stdout.count("policy strict") == 2


def test_a_run_with_nothing_to_count_says_so_and_what_to_do(tmp_path, run):
    begun = new_run(tmp_path / "begun")
    told = f"{begun.root}: no shard is complete, nor any unit of one; capfilt status {begun.root} tells why\n"
    assert call("stats", begun.root).stderr == call("stats", begun.root, "--csv").stderr == told
    assert call("compare", begun.root, run).stderr == told

    commit(begun, SHARD, [0, 2], [record(0), record(1)], [web(0)])
    more = f"capfilt stats {begun.root} --unfinished counts their units\n"
    assert call("stats", begun.root).stderr == f"{begun.root}: no shard is complete, and some are in work; {more}"
    assert call("stats", begun.root, "--unfinished").stderr == ""
    assert "attempted             2" in call("stats", begun.root, "--unfinished").stdout
