import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from drivers import displace
from dry_runs import dry_run
from fakes import NAMES, build_fakes, build_nan, job_config, mixed_shards, write_shard

from capfilt import storage
from capfilt.cli import cli
from capfilt.config import ExportConfig, Policy
from capfilt.errors import FailedUnitsError, RunError, StoppedError
from capfilt.export import Exported, export_shard
from capfilt.records import Unit
from capfilt.runs import load_run
from capfilt.runs import stop as stops
from capfilt.runs.lease import hold_lease
from capfilt.shards import write_tar
from capfilt.verify import verify
from pipelines import bootstrap, export

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run that is bootstrapped and not exported."""
    mixed_shards(tmp_path / "in", samples=7)
    bootstrap.run(job_config(tmp_path), build_fakes, NAMES, local=True)
    return tmp_path


def clean(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "run/clean").rglob("*") if path.is_file()}


def test_a_run_is_exported_once(folder):
    config = ExportConfig(run=str(folder / "run"))

    first = export.run(config)
    before = clean(folder)
    (folder / "in/00001.tar").unlink()  # so that it cannot be read again
    second = export.run(config)

    assert first == second
    assert first.startswith("3 clean shards with 15 samples and ")
    assert clean(folder) == before
    assert {"_SUCCESS", "manifest.parquet", "00002.tar"} <= set(before)


def test_another_policy_needs_no_model_and_goes_to_another_folder(folder):
    strict = ExportConfig(run=str(folder / "run"), policy=Policy(name="web", mix="web_only"))

    both, web = export.run(ExportConfig(run=str(folder / "run"))), export.run(strict)

    assert both != web
    assert len(list((folder / "run/clean").iterdir())) == 2


def test_an_incomplete_shard_is_named_and_the_export_is_not_marked_whole(folder):
    (folder / "run/ledger").rename(folder / "away")
    (ledger,) = (folder / "away").iterdir()
    (ledger / "00001.json").unlink()
    (folder / "away").rename(folder / "run/ledger")

    with pytest.raises(
        FailedUnitsError, match=r"2 of 3 shards in .*\n1 failed(.|\n)*00001\.tar: its ledger is not"
    ) as told:
        export.run(ExportConfig(run=str(folder / "run")))

    assert "; bootstrap again, and then export again:\n" in str(told.value)
    assert "run the same again" not in str(told.value)
    assert {"00000.tar", "00002.tar"} <= set(clean(folder))
    assert "_SUCCESS" not in clean(folder)


def test_a_damaged_shard_is_done_without_only_where_the_run_says_so(tmp_path):
    write_shard(tmp_path / "in/0.tar", [("red", "red car")])
    write_shard(tmp_path / "in/1.tar", [("red", "red car")])
    whole = (tmp_path / "in/1.tar").read_bytes()
    (tmp_path / "in/1.tar").write_bytes(whole[:700])
    with pytest.raises(FailedUnitsError):
        bootstrap.run(job_config(tmp_path), build_fakes, NAMES, local=True)

    config = ExportConfig(run=str(tmp_path / "run"))
    with pytest.raises(FailedUnitsError, match=r"1\.tar: cut .*; fetch it again, or set damage: keep-") as failure:
        export.run(config)
    assert "1 of 2 shards in" in str(failure.value)
    assert "_SUCCESS" not in clean(tmp_path)
    assert "1.tar: cut" in str(export.dry_run(config))

    bootstrap.run(job_config(tmp_path, damage="skip-shard"), build_fakes, NAMES, local=True)
    assert export.run(config).startswith("1 clean shard with 1 sample")


def test_an_image_that_changed_fails_its_shard_alone(folder):
    (folder / "in/00001.tar").write_bytes((folder / "in/00002.tar").read_bytes())

    with pytest.raises(FailedUnitsError, match=r"2 of 3 shards in .*\n1 failed(.|\n)*00001\.tar: has changed since"):
        export.run(ExportConfig(run=str(folder / "run")))


def test_ctrl_c_ends_an_export_behind_the_shard_in_hand(folder, in_front, monkeypatch):
    config = ExportConfig(run=str(folder / "run"))

    def interrupted(*arguments: object) -> Exported:
        os.kill(os.getpid(), signal.SIGINT)
        return export_shard(*arguments)

    monkeypatch.setattr("workers.export_worker.export_shard", interrupted)
    with pytest.raises(StoppedError, match=r"run the same again\n1 of 3 shards in .*/clean/default-"):
        export.run(config)
    assert {name for name in clean(folder) if name.endswith(".tar")} == {"00000.tar"}
    assert "_SUCCESS" not in clean(folder)
    assert "policy.yaml" in clean(folder)

    monkeypatch.undo()
    assert export.run(config).startswith("3 clean shards")


def test_the_policy_is_written_with_the_first_shard_and_at_the_end_however_many_shards_there_are(folder, monkeypatch):
    """An object store takes another version of a file once a second, and many workers would be turned away."""
    written, publish = [], storage.publish

    def note(path: str, data: bytes) -> None:
        written.append(Path(path).name)
        publish(path, data)

    monkeypatch.setattr(storage, "publish", note)
    export.run(ExportConfig(run=str(folder / "run")))
    assert Counter(written)["policy.yaml"] == 2
    assert Counter(written)["00001_stats.json"] == 1


def stop(folder: Path, *more: str) -> str:
    result = CliRunner().invoke(cli, ["stop", str(folder / "run"), *more])
    assert result.exit_code == 0, result.output
    return result.output


def stop_at_the_first_shard(folder: Path, monkeypatch, heard: Callable[[], bool], *more: str) -> None:
    """Let an export be asked to stop by whoever knows its run alone, and hear of it while a shard is in hand."""

    def asked(*arguments: object) -> Exported:
        assert re.match(rf"{folder}/run/exports/default-\w+: pid {os.getpid()} on ", stop(folder, *more))
        deadline = time.monotonic() + 60
        while not heard():
            assert time.monotonic() < deadline, "the request is not heard"
            time.sleep(0.01)
        return export_shard(*arguments)

    monkeypatch.setattr(stops, "POLL", 0.02)
    monkeypatch.setattr("workers.export_worker.export_shard", asked)


def test_a_request_to_stop_ends_an_export_behind_the_shard_in_hand(folder, monkeypatch, caplog):
    config = ExportConfig(run=str(folder / "run"))
    told = "asked to stop: the shards in hand finish, and no other begins"
    stop_at_the_first_shard(folder, monkeypatch, lambda: told in caplog.text)
    with pytest.raises(StoppedError, match=r"run the same again\n1 of 3 shards in .*/clean/default-"):
        export.run(config)

    assert not [path for path in (folder / "run/exports").rglob("*") if path.is_file()]
    monkeypatch.undo()
    assert export.run(config).startswith("3 clean shards")


def test_a_request_without_delay_ends_an_export_in_the_middle_of_a_shard(folder, monkeypatch):
    stop_at_the_first_shard(folder, monkeypatch, lambda: False, "--now")
    with pytest.raises(SystemExit) as ending:
        export.run(ExportConfig(run=str(folder / "run")))

    assert ending.value.code == 143
    assert not (folder / "run/clean").exists()


KILLED = """
import os, signal
from capfilt import export as library
from capfilt.config import ExportConfig
from pipelines import export

def cut_short(path, members):
    path.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

library.write_tar = cut_short
export.run(ExportConfig(run={run!r}))
"""


def in_the_making(folder: Path) -> list[Path]:
    return list((folder / "run/clean").rglob("*.partial"))


def test_an_export_removes_the_files_that_a_killed_one_left_in_the_making(folder):
    code = KILLED.format(run=str(folder / "run"))
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -signal.SIGKILL
    assert len(in_the_making(folder)) == 1

    export.run(ExportConfig(run=str(folder / "run")))
    assert in_the_making(folder) == []


def test_an_export_at_work_keeps_its_files_in_the_making_and_a_second_one_away(folder):
    config, run = ExportConfig(run=str(folder / "run")), load_run(str(folder / "run"))
    begun = Path(run.clean(config), f".{'0' * 32}.partial")
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"half")

    with hold_lease(run.exporting(config)):
        with pytest.raises(RunError, match="another driver is at work on this run"):
            export.run(config)
        (problem,) = export.dry_run(config).problems
        assert "another driver is at work on this run" in problem
        bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)
    with hold_lease(run.root):  # as a bootstrap does, which may be at its own export
        export.run(config)
    assert in_the_making(folder) == [begun]

    export.run(config)
    assert in_the_making(folder) == []


def test_an_export_whose_lease_another_has_taken_ends_though_no_shard_does(folder, monkeypatch):
    config, run, over = ExportConfig(run=str(folder / "run")), load_run(str(folder / "run")), threading.Event()

    class Stuck:
        def __init__(self, *of: object) -> None:
            """Let another take the lease."""
            taking.start()

        def run(self, unit: Unit) -> Exported:
            raise AssertionError(f"{unit} is done" if over.wait(60) else "the export goes on")

    taking = threading.Thread(target=displace, args=(run.exporting(config), over.is_set))
    monkeypatch.setattr(export, "ExportWorker", Stuck)
    monkeypatch.setattr("capfilt.runs.lease.RENEW_EVERY", 0.02)
    try:
        with pytest.raises(RunError, match=r"another driver has taken this run: pid .*; this one stops"):
            export.run(config)
    finally:
        over.set()
        taking.join()


def test_a_shard_that_a_bootstrap_does_anew_meanwhile_fails_and_is_whole_when_exported_again(tmp_path, monkeypatch):
    """The sample that failed before is scored this time: what was read of the ledger before is of the past."""
    write_shard(tmp_path / "in/00000.tar", [("red", "my red car"), ("white", "snow")])
    write_shard(tmp_path / "in/00001.tar", [("blue", "sea")])
    bootstrap.run(job_config(tmp_path), build_nan, NAMES, local=True)
    config = ExportConfig(run=str(tmp_path / "run"))

    def retried(*arguments: object) -> None:
        monkeypatch.undo()
        bootstrap.run(job_config(tmp_path), build_fakes, NAMES, local=True, retry_quarantined=True)
        write_tar(*arguments)

    monkeypatch.setattr("capfilt.export.write_tar", retried)
    with pytest.raises(
        FailedUnitsError, match=r"1 of 2 shards in .*\n1 failed(.|\n)*00000\.tar: its bootstrap was begun anew"
    ):
        export.run(config)

    assert export.run(config).startswith("2 clean shards with 3 samples")
    assert verify(load_run(config.run)) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        export.run(ExportConfig(run=str(tmp_path)))


def test_a_dry_run_tells_what_is_left_and_writes_nothing(folder):
    (folder / "export.yaml").write_text(f"run: {folder}/run\n")
    told = dry_run(folder, "export", folder / "export.yaml")
    assert told.exit_code == 0, told.output
    assert "  does    3 shards; 0 exported already" in told.output
    assert f"  writes  {folder}/run/clean/default-" in told.output

    export.run(ExportConfig(run=str(folder / "run")))
    assert "0 shards; 3 exported already" in dry_run(folder, "export", folder / "export.yaml").output


def test_a_dry_run_names_shards_that_cannot_be_exported(folder):
    (ledger,) = (folder / "run/ledger").iterdir()
    (ledger / "00001.json").unlink()
    (folder / "in/00000.tar").unlink()
    (folder / "export.yaml").write_text(f"run: {folder}/run\n")
    told = dry_run(folder, "export", folder / "export.yaml")
    assert told.exit_code == 1
    assert "00001.tar: its ledger is not complete; bootstrap again" in told.output
    assert "00000.tar: there is no such file" in told.output


def test_a_dry_run_of_recut_tells_the_same_behind_the_difference(folder):
    told = dry_run(folder, "recut", folder / "run", "--set", "web_itm=0.9")
    assert told.exit_code == 0, told.output
    assert "export, dry run: nothing was written\n" in told.output
