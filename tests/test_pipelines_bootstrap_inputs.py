"""What the bootstrap job makes of inputs that are damaged, changed, empty or no shards."""

import re
import shutil
from pathlib import Path

import pytest
from drivers import tables
from fakes import NAMES, build_fakes, build_nothing, job_config, picture, write_shard

from capfilt.errors import ConfigError, FailedUnitsError, RunError
from capfilt.planning import plan_shards
from capfilt.query import open_run
from capfilt.runs import load_run, start_run
from capfilt.shards import find_shards, write_tar
from capfilt.stats import summarise
from capfilt.storage import list_files
from capfilt.verify import verify
from pipelines import bootstrap


def test_an_archive_of_other_files_is_to_be_taken_out_of_the_input(folder):
    write_tar(folder / "in/00009.tar", [("README.md", b"no sample"), ("code/main.py", b"pass")])

    with pytest.raises(FailedUnitsError) as told:
        bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)

    (reason,) = told.value.failed
    assert reason.startswith(f"{folder}/in/00009.tar: ")
    assert reason.endswith("; take it out of input, or set damage: keep-readable or skip-shard")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def test_a_damaged_shard_fails_and_the_others_go_on(folder, undisturbed, caplog):
    whole = (folder / "in/00001.tar").read_bytes()
    cut(folder / "in/00001.tar")

    with pytest.raises(FailedUnitsError, match=r"42 samples(.|\n)*1 failed(.|\n)*in/00001\.tar: .*damage: keep-readab"):
        bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)

    assert [line for line in caplog.messages if line.startswith(f"left out: {folder}/in/00001.tar: ")]
    assert not list((folder / "run").glob("clean/*/_SUCCESS"))
    (folder / "in/00001.tar").write_bytes(whole)  # fetched again
    summary = bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    assert summary.startswith("3 shards, 0 left out, 42 samples done before; 21 samples")
    assert tables(folder) == tables(undisturbed)


def test_a_damaged_shard_can_be_skipped_or_read_as_far_as_it_goes(folder, caplog):
    cut(folder / "in/00001.tar")
    (folder / "in/00002.tar").write_bytes(b"<html>not found</html>")

    skipped = bootstrap.run(job_config(folder, damage="skip-shard"), build_fakes, NAMES, local=True)
    read = bootstrap.run(job_config(folder, damage="keep-readable"), build_fakes, NAMES, local=True)

    assert skipped.startswith("3 shards, 2 left out, 0 samples done before; 21 samples")
    assert read.startswith("3 shards, 1 left out, 21 samples done before; ")
    plan = {shard.id: shard for shard in load_run(f"{folder}/run").plan()}
    assert 0 < plan["00001"].samples < 21
    assert all(plan[id_].damage for id_ in ("00001", "00002"))
    assert [line.partition(": cut")[0] for line in caplog.messages if line.startswith("read in part")] == [
        f"read in part: {folder}/in/00001.tar"
    ]
    assert "\n1 damaged shard read in part" in read
    assert "damaged shard" not in skipped
    with open_run(str(folder / "run")) as opened:
        assert opened.extent == "2 of 3 shards complete, 1 of them damaged and read in part"


def test_a_file_that_is_no_shard_is_named_once_and_has_one_remedy(tmp_path):
    write_shard(tmp_path / "in/0.tar", [("red", "red car")])
    (tmp_path / "in/1.tar").write_bytes(b"")
    (tmp_path / "list.csv").write_text("a;b\n")
    config = job_config(tmp_path, input=[str(tmp_path / "in"), str(tmp_path / "list.csv")])

    with pytest.raises(FailedUnitsError) as failure:
        bootstrap.run(config, build_fakes, NAMES, local=True)

    assert failure.value.failed == [
        f"{tmp_path}/in/1.tar: is empty, 0 bytes; fetch it again, or set damage: skip-shard",
        f"{tmp_path}/list.csv: the head is one cell, 'a;b'; put commas between cells, or set damage: skip-shard",
    ]


def test_a_row_of_a_list_that_cannot_be_read_is_told_with_the_remedy_and_counted(tmp_path):
    (tmp_path / "red.jpg").write_bytes(picture("red"))
    rows = ["red car", '"Beware of the dog', "blue car", 'frame 8x12"', "green car"]
    (tmp_path / "list.csv").write_text("image,caption\n" + "".join(f"red.jpg,{row}\n" for row in rows))
    config = job_config(tmp_path, input=[str(tmp_path / "list.csv")])

    with pytest.raises(FailedUnitsError, match=r"list\.csv: line 3: its quotes are not.*; mend these lines, or set"):
        bootstrap.run(config, build_fakes, NAMES, local=True)
    kept = bootstrap.run(config.model_copy(update={"damage": "keep-readable"}), build_fakes, NAMES, local=True)

    assert "5 samples: 4 scored, 1 failed (1 bad_row)" in kept


def test_files_that_come_or_go_are_refused_by_name(folder):
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    write_shard(folder / "in/00009.tar", [("red", "")])
    (folder / "in/00000.tar").unlink()

    with pytest.raises(RunError, match=r"gone: .*00000\.tar\n +new: .*00009\.tar"):
        bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)


def test_inputs_in_other_words_are_listed_once_by_a_resume(folder, monkeypatch):
    """Of 100,000 shards in a store, each listing takes minutes."""
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    listed: list[str] = []
    monkeypatch.setattr("capfilt.shards.find.list_files", lambda place: listed.append(place) or list_files(place))

    summary = bootstrap.run(job_config(folder, input=[f"{folder}/in/"]), build_nothing, NAMES, local=True)

    assert summary.startswith("3 shards, 0 left out, 63 samples done before")
    assert listed == [f"{folder}/in/"]


def test_a_shard_that_changes_after_planning_fails_alone(folder):
    config = job_config(folder)
    plan_shards(start_run(config, NAMES), find_shards(config.input))
    write_shard(folder / "in/00001.tar", [("red", "another")] * 21)

    with pytest.raises(FailedUnitsError, match=r"3 failed(.|\n)*00001\.tar: has changed since it was planned"):
        bootstrap.run(config, build_fakes, NAMES, local=True)
    assert sum(name.endswith(".json") for name in tables(folder)) == 2


def test_inputs_that_match_nothing_leave_no_run_folder(folder):
    with pytest.raises(ConfigError, match="nothing matches no shard"):
        bootstrap.run(job_config(folder, input=[f"{folder}/nothing"]), build_fakes, NAMES, local=True)

    assert not (folder / "run").exists()


def test_a_shard_over_its_share_of_failures_fails_alone_also_when_cut_into_units(folder):
    write_shard(folder / "in/00003.tar", [(b"no image", "")] * 9 + [("red", "")] * 7)

    with pytest.raises(FailedUnitsError, match=r"1 failed(.|\n)*00003\.tar: 9 of 16 samples failed \(9 not_an_image\)"):
        bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)

    bootstrap.run(job_config(folder, max_failed_share=0.6), build_nothing, NAMES, local=True)
    assert sum(name.endswith(".json") for name in tables(folder)) == 4


def test_a_shard_over_its_share_of_failures_is_done_anew_by_what_its_message_says(folder):
    write_shard(folder / "in/00003.tar", [(b"no image", "")] * 9 + [("red", "")] * 7)
    with pytest.raises(FailedUnitsError, match="9 of 16 samples failed") as told:
        bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)

    found = re.search(r"; or remove (\S+/00003) to have it done anew once its images can be read$", str(told.value))
    assert found is not None
    shutil.rmtree(found[1])

    with pytest.raises(FailedUnitsError, match="; 16 samples: 7 scored, 9 failed"):
        bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)


def test_a_run_may_hold_no_sample_at_all(folder):
    for path in sorted((folder / "in").iterdir()):
        write_shard(path, [])

    summary = bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)

    assert "3 clean shards with 0 samples" in summary
    assert verify(load_run(f"{folder}/run")) == []
    assert summarise(open_run(f"{folder}/run")).samples == 0
