from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import NAMES, job_config, write_shard
from ledgers import commit, record, web

from capfilt.errors import RunError
from capfilt.forecast.survey import survey
from capfilt.planning import (
    TOLD,
    index_here,
    passed_over,
    plan_shards,
    planned_shards,
    shards_at,
    tell_passed_over,
    unusable,
    warn_of_damage,
)
from capfilt.records import PassedOver, Shard
from capfilt.runs import Run, start_run
from capfilt.shards import find_shards, write_tar

WHOLE = Shard("0", "0.tar", 10, "d", 3)
CUT = Shard("0", "0.tar", 10, "d", 3, "cut short")
NO_SHARD = Shard("0", "0.tar", 0, "", 0, "is empty")


def test_shards_that_are_left_out_are_told_and_of_many_their_number(caplog):
    shards = [Shard(str(n), f"{n}.tar", 0, "", 0, f"{n}.tar: is empty") for n in range(TOLD + 5)]

    warn_of_damage("left out", shards[:2])
    assert caplog.messages == ["left out: 0.tar: is empty", "left out: 1.tar: is empty"]
    warn_of_damage("left out", shards[:TOLD])
    assert caplog.messages[-1] == f"left out: {TOLD - 1}.tar: is empty"
    warn_of_damage("left out", shards)
    assert caplog.messages[-2:] == [f"left out: {TOLD - 1}.tar: is empty", "left out: 5 more; capfilt scan lists all"]


@pytest.fixture
def run(tmp_path) -> Run:
    for n in range(3):
        write_shard(tmp_path / f"in/{n}.tar", [("red", "")] * (n + 1))
    return start_run(job_config(tmp_path), NAMES)


def found(tmp_path: Path) -> list[str]:
    return find_shards([str(tmp_path / "in")])


def test_a_plan_names_every_shard_with_its_samples(run, tmp_path):
    shards = plan_shards(run, found(tmp_path))

    assert [(shard.id, shard.url, shard.samples) for shard in shards] == [
        (str(n), f"{tmp_path}/in/{n}.tar", n + 1) for n in range(3)
    ]
    assert run.plan() == shards


def test_paths_are_absolute_since_workers_have_other_current_folders(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert all(shard.url.startswith(f"{tmp_path}/in/") for shard in plan_shards(run, find_shards(["in"])))


def test_a_plan_once_made_is_read_not_made_again(run, tmp_path):
    first = plan_shards(run, found(tmp_path))
    written = Path(run.root, "plan/shards.parquet").stat().st_mtime_ns
    write_shard(tmp_path / "in/1.tar", [("blue", "")])

    assert plan_shards(run, found(tmp_path)) == first
    assert Path(run.root, "plan/shards.parquet").stat().st_mtime_ns == written


def test_a_plan_that_was_cut_short_goes_on_with_what_was_indexed(run, tmp_path):
    list(index_here(run, [Shard("1", f"{tmp_path}/in/1.tar", 0, "", 0)]))
    asked: list[str] = []

    def index(run: Run, shards: Sequence[Shard]) -> list[Shard]:
        asked.extend(shard.id for shard in shards)
        return list(index_here(run, shards))[::-1]

    shards = plan_shards(run, found(tmp_path), index)

    assert asked == ["0", "2"]
    assert [(shard.id, shard.samples) for shard in shards] == [("0", 1), ("1", 2), ("2", 3)]


def test_of_a_plan_that_was_cut_short_a_damaged_shard_is_looked_at_again(run, tmp_path):
    path = tmp_path / "in/2.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:1500])
    (damaged,) = index_here(run, [Shard("2", str(path), 0, "", 0)])
    assert damaged.damage
    path.write_bytes(whole)

    assert [shard.damage for shard in plan_shards(run, found(tmp_path))] == ["", "", ""]


def test_a_file_that_is_no_shard_is_planned_with_what_is_wrong(run, tmp_path):
    (tmp_path / "in/1.tar").write_bytes(b"")

    shard = plan_shards(run, found(tmp_path))[1]

    assert (shard.samples, shard.digest) == (0, "")
    assert "is empty" in shard.damage


def test_a_shard_that_was_mended_is_planned_anew(run, tmp_path):
    (tmp_path / "in/1.tar").write_bytes(b"")
    plan_shards(run, found(tmp_path))
    write_shard(tmp_path / "in/1.tar", [("blue", "")] * 5)

    assert plan_shards(run, found(tmp_path))[1].samples == 5
    assert run.plan()[1].samples == 5


def test_a_damaged_shard_of_which_something_is_committed_stays_as_it_was_planned(run, tmp_path):
    path = tmp_path / "in/2.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    planned = plan_shards(run, found(tmp_path))
    assert planned[2].damage
    commit(run, planned[2], [0, 1], [record(0)], [web(0)])
    path.write_bytes(whole)

    assert plan_shards(run, found(tmp_path)) == planned


def test_a_dry_run_sees_the_plan_that_a_start_would_make_and_writes_none(run, tmp_path):
    (tmp_path / "in/1.tar").write_bytes(b"")
    planned = plan_shards(run, found(tmp_path))
    write_shard(tmp_path / "in/1.tar", [("blue", "")] * 5)
    write_shard(tmp_path / "in/0.tar", [("blue", "")] * 4)  # was whole, and is not looked at again

    seen = planned_shards(run, planned, found(tmp_path))

    assert run.plan() == planned
    assert [shard.samples for shard in seen] == [1, 5, 3]
    assert plan_shards(run, found(tmp_path)) == seen


def test_members_that_are_no_part_of_a_sample_are_told_the_commonest_first():
    members = {".xcf": PassedOver(3, "1.xcf"), ".psd": PassedOver(900, "a.psd")}
    shards = [replace(WHOLE, url=f"in/{n}.tar", passed_over=members) for n in range(2)]

    assert tell_passed_over(passed_over(shards)) == (
        "members of tars that are no part of a sample: 1,800 .psd (0.tar: a.psd), 6 .xcf (0.tar: 1.xcf)"
    )


def test_members_that_are_no_part_of_a_sample_are_told_when_a_run_is_planned(run, tmp_path, caplog):
    for n in range(2):
        write_tar(tmp_path / f"in/{n}.tar", [("0.jpg", b"x"), ("1.xcf", b"y")])

    plan_shards(run, found(tmp_path))
    plan_shards(run, found(tmp_path))

    assert caplog.messages == ["passed over: members of tars that are no part of a sample: 2 .xcf (0.tar: 1.xcf)"]
    assert len(passed_over(shards_at(found(tmp_path)))) == 1


def test_files_that_go_are_refused_by_name_the_first_ten_of_them(run, tmp_path):
    plan_shards(run, found(tmp_path))

    with pytest.raises(RunError, match=r"\n +gone: .*/0\.tar\n +gone: .*/1\.tar\n +new: .*/8\.tar\n +new: .*/9\.tar$"):
        plan_shards(run, [f"{tmp_path}/in/{n}.tar" for n in (9, 2, 8)])
    with pytest.raises(RunError, match=r"(\n +(gone|new): .*/\d+\.tar){10}$"):
        plan_shards(run, [f"{tmp_path}/in/{n}.tar" for n in range(1, 12)])
    with pytest.raises(RunError, match=r"another run(\n +(gone|new): .*/\d+\.tar){10}\n +and 7 more$"):
        plan_shards(run, [f"{tmp_path}/in/{n}.tar" for n in range(1, 19)])


def test_files_that_come_are_left_out_and_told(run, tmp_path, caplog):
    planned = plan_shards(run, found(tmp_path))
    write_shard(tmp_path / "in/9.tar", [("blue", "")])

    assert plan_shards(run, found(tmp_path)) == planned == run.plan()
    assert caplog.messages == [
        f"{run.root}: left out, since new after the run was planned: 1 file; for them, start another run\n"
        f"  new: {tmp_path}/in/9.tar"
    ]
    looked_at = survey(run, run.config(), found(tmp_path))
    assert (looked_at.shards, looked_at.whole) == (planned, True)


@pytest.mark.parametrize(
    "given", ["in", "in/", "run/../in", "{folder}/link/*.tar", "{folder}/in/*.tar", "{folder}/in/{{0..2}}.tar"]
)
def test_a_planned_run_goes_on_with_its_shards_in_other_words(run, tmp_path, monkeypatch, given):
    planned = plan_shards(run, found(tmp_path))
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    config = job_config(tmp_path, input=[given.format(folder=tmp_path)])

    assert start_run(config, NAMES) == run
    assert plan_shards(run, find_shards(config.input)) == planned


@pytest.mark.parametrize("given", [["{folder}/in/1.tar"], ["{folder}/in", "{folder}/more"]])
def test_inputs_in_other_words_that_mean_other_shards_are_refused(run, tmp_path, given):
    plan_shards(run, found(tmp_path))
    write_shard(tmp_path / "more/9.tar", [("blue", "")])

    with pytest.raises(RunError, match=r"\n  input: \['\S+'\] in the run, \['"):
        start_run(job_config(tmp_path, input=[path.format(folder=tmp_path) for path in given]), NAMES)
    assert run.config() == job_config(tmp_path)


@pytest.mark.parametrize(
    ("shard", "damage", "left_out"),
    [
        (WHOLE, "fail", False),
        (CUT, "fail", True),
        (CUT, "skip-shard", True),
        (CUT, "keep-readable", False),
        (NO_SHARD, "keep-readable", True),
    ],
)
def test_what_is_left_out_of_a_run(tmp_path, shard, damage, left_out):
    assert unusable(shard, job_config(tmp_path, damage=damage)) is left_out
