"""The bootstrap job as a whole: the same bytes however it runs and whatever is killed, and nothing lost in silence."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from drivers import displace, start_driver, tables, wait_for_commits, wait_until, wait_until_told
from fakes import NAMES, build_dying, build_fakes, build_nothing, job_config, mixed_shards, picture, write_shard

from capfilt.batch_size import MIN_BATCH
from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig, ExportConfig, Policy
from capfilt.errors import ConfigError, FailedUnitsError, RunError, StoppedError, WorkerError
from capfilt.ledger import read_candidates, read_samples
from capfilt.planning import plan_shards
from capfilt.query import open_run
from capfilt.runs import load_run, start_run
from capfilt.runs import stop as stops
from capfilt.runs.lease import hold_lease
from capfilt.runs.status import read_record
from capfilt.runs.stop import request_stop, stop_requested
from capfilt.scan import scan
from capfilt.shards import find_shards, write_tar
from capfilt.stats import summarise
from capfilt.verify import verify
from pipelines import bootstrap, export, indexing
from pipelines.bootstrap_dry_run import dry_run, look

TESTS = Path(__file__).parent


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """A job over mixed shards, done in one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    mixed_shards(folder / "in")
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """The same shards again, for another job."""
    mixed_shards(tmp_path / "in")
    return tmp_path


def test_one_checkpoint_for_both_roles_is_warned_of_once(folder, caplog):
    for names, times in ((NAMES, 0), (dict.fromkeys(NAMES, "c0ffee"), 1)):
        caplog.clear()
        bootstrap.run(job_config(folder, run=f"{folder}/run{times}"), build_fakes, names, local=True)

        told = [record for record in caplog.records if "are the same checkpoint" in record.getMessage()]
        assert [record.levelname for record in told] == ["WARNING"] * times


def test_an_archive_of_other_files_is_to_be_taken_out_of_the_input(folder):
    write_tar(folder / "in/00009.tar", [("README.md", b"no sample"), ("code/main.py", b"pass")])

    with pytest.raises(FailedUnitsError) as told:
        bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)

    (reason,) = told.value.failed
    assert reason.startswith(f"{folder}/in/00009.tar: ")
    assert reason.endswith("; take it out of input, or set damage: keep-readable or skip-shard")


def test_every_sample_of_every_shard_is_in_the_ledger(undisturbed):
    run = load_run(f"{undisturbed}/run")

    for shard in run.plan():
        samples, candidates = read_samples(run, shard), read_candidates(run, shard)
        assert samples["position"].to_pylist() == list(range(21))
        assert samples["status"].to_pylist() == ["not_an_image" if n % 5 == 0 else "ok" for n in range(21)]
        assert set(candidates["position"].to_pylist()) == {n for n in range(21) if n % 5}
    assert sorted(tables(undisturbed)) == sorted(
        f"{run.models}/{n:05d}.{kind}" for n in range(3) for kind in ("candidates.parquet", "json", "samples.parquet")
    )


def test_the_summary_adds_up(folder):
    summary = bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)

    first, texts, seconds = summary.splitlines()
    assert first == ("3 shards, 0 left out, 0 samples done before; 63 samples: 48 scored, 15 failed (15 not_an_image)")
    assert texts == ("78 candidates: synthetic 48 of 48 kept (100.0%), web 15 of 30 kept (50.0%); 192 tokens generated")
    assert re.fullmatch(
        r"\d:\d\d:\d\d, [\d.]+ images/s; of the workers' time: caption \d+%, score \d+%, models idle \d+%; "
        r"beside that read \d+%, write \d+%",
        seconds,
    )


@pytest.mark.parametrize(
    "breaking", ["ledger/*/00000.candidates.parquet", "ledger/*/00001.json", "plan/shards.parquet"]
)
def test_a_run_of_which_a_file_is_broken_comes_out_whole_again(folder, undisturbed, breaking, caplog):
    config = job_config(folder, export=True)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    (path,) = (folder / "run").glob(breaking)
    path.unlink()  # what verify's messages tell to do

    told = str(dry_run(config, lambda _: [], lambda _: NAMES, local=True))
    summary = bootstrap.run(config, build_fakes, NAMES, local=True)

    missed = path.name == "00000.candidates.parquet"  # without its record a shard just has not been done
    assert f"{63 if path.name == 'shards.parquet' else 42} samples done before" in summary
    assert (f"done anew  the shard of {path}: is missing" in told) == missed
    assert ("the shard is done anew" in caplog.text) == missed
    assert tables(folder) == tables(undisturbed)
    assert verify(load_run(config.run)) == []


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_bytes_as_one_process(folder, undisturbed, workers):
    cluster = {"workers": workers, "cpus_per_worker": 0.5}
    bootstrap.run(job_config(folder, cluster=cluster), build_fakes, NAMES)

    assert tables(folder) == tables(undisturbed)


def test_the_size_of_a_unit_changes_no_table(folder, undisturbed):
    bootstrap.run(job_config(folder, unit_size=16), build_fakes, NAMES, local=True)

    assert tables(folder) == tables(undisturbed)


def test_a_second_run_does_nothing(folder):
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    before = tables(folder)

    summary = bootstrap.run(job_config(folder), build_nothing, NAMES, local=True)

    assert summary.startswith("3 shards, 0 left out, 63 samples done before; 0 samples")
    assert tables(folder) == before


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("local", [True, False])
def test_a_batch_size_that_is_not_set_is_found_when_a_run_begins_and_kept(tmp_path, local):
    write_shard(tmp_path / "in/00000.tar", [("red", "my red car")] * 9)
    config = job_config(tmp_path, batch_size=0)

    bootstrap.run(config, build_fakes, NAMES, local=local)
    found = load_run(f"{tmp_path}/run").config().batch_size
    again = bootstrap.run(config, build_nothing, NAMES, local=True)

    assert found >= MIN_BATCH
    assert again.startswith("1 shard, 0 left out, 9 samples done before; 0 samples")
    with pytest.raises(RunError, match=f"batch_size: {found} in the run, 4 here"):
        bootstrap.run(job_config(tmp_path), build_nothing, NAMES, local=True)


@pytest.mark.usefixtures("ray_cluster")
def test_a_trial_that_fails_says_why(tmp_path):
    write_shard(tmp_path / "in/00000.tar", [("red", "my red car")])
    with pytest.raises(WorkerError, match="no worker can be tried: AssertionError: the models were loaded"):
        bootstrap.run(job_config(tmp_path, batch_size=0), build_nothing, NAMES)


@pytest.mark.usefixtures("ray_cluster")
def test_shards_that_workers_index_are_planned_as_by_the_driver(folder, undisturbed, monkeypatch):
    (folder / "in/00003.tar").write_bytes(b"no shard")
    (folder / "in/00003.tar").rename(folder / "in/00003.tgz")
    config = job_config(folder)
    expected = plan_shards(start_run(job_config(folder, run=str(folder / "here")), NAMES), find_shards(config.input))
    monkeypatch.setattr(indexing, "FEW_SHARDS", 1)

    with pytest.raises(FailedUnitsError, match=r"1 failed(.|\n)*00003\.tgz"):
        bootstrap.run(config, build_fakes, NAMES)

    assert load_run(config.run).plan() == expected
    assert tables(folder) == tables(undisturbed)
    assert len(list((folder / "run/plan/index").iterdir())) == 3


@pytest.mark.usefixtures("ray_cluster")
def test_a_killed_actor_changes_no_byte(tmp_path, folder):
    write_shard(folder / "in/00003.tar", [("white", "snow")] * 9 + [("red", "my red car")] * 9)
    (tmp_path / "calm").mkdir()
    (tmp_path / "calm/in").symlink_to(folder / "in")
    calm = job_config(tmp_path / "calm")

    bootstrap.run(calm, build_fakes, NAMES, local=True)
    bootstrap.run(job_config(folder), partial(build_dying, marker=str(tmp_path / "deaths"), times=1), NAMES)

    assert (tmp_path / "deaths").stat().st_size > 1
    assert tables(folder) == tables(tmp_path / "calm")


def build_beside_the_dead(config: BootstrapConfig, notes: Path) -> CapFilt:
    """Return models that die once; the ones after them find the memory of their device still taken, once."""
    build = len(list(notes.glob("build*")))
    (notes / f"build{build}").touch()
    if build == 1:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return build_dying(config, str(notes / "deaths"))


@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_whose_models_find_no_memory_beside_those_of_the_dead_is_built_a_little_later(tmp_path, caplog):
    write_shard(tmp_path / "in/00000.tar", [("white", "snow")] * 9)
    (tmp_path / "notes").mkdir()
    config = job_config(tmp_path, cluster={"workers": 1, "cpus_per_worker": 0.5, "attempts": 2})

    told = bootstrap.run(config, partial(build_beside_the_dead, notes=tmp_path / "notes"), NAMES)

    assert len(list((tmp_path / "notes").glob("build*"))) == 3
    assert "again in 1 s: OSError: [Errno 12] no memory for the models" in caplog.text
    assert "9 samples: 9 scored, 0 failed" in told


@pytest.mark.usefixtures("ray_cluster")
def test_models_that_cannot_be_loaded_stop_the_job(folder):
    with pytest.raises(WorkerError, match="no worker can be built: AssertionError: the models were loaded"):
        bootstrap.run(job_config(folder), build_nothing, NAMES)


def test_a_killed_driver_is_resumed_to_the_same_bytes(folder, undisturbed):
    """The job is killed at some moment, several times over, until it comes to its end. On Ray: test_chaos.py."""
    chance = random.Random(1)
    kills = 0
    while True:
        driver = start_driver(folder, local=True)
        wait_for_commits(folder, more=chance.randint(1, 2), driver=driver)
        time.sleep(chance.random() * 0.2)
        driver.send_signal(signal.SIGKILL)
        if driver.wait() == 0:
            break
        kills += 1
        if kills == 2:
            bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
            break

    assert kills > 0
    assert tables(folder) == tables(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "phase", "code"),
    [
        ([signal.SIGTERM], "ended", 128 + signal.SIGTERM),
        ([signal.SIGINT], "stopped", 1),  # Python's own for an error that nobody catches
        ([signal.SIGINT, signal.SIGINT], "ended", -signal.SIGINT),
    ],
)
def test_a_job_that_is_asked_to_end_leaves_nothing_half_done(folder, undisturbed, signals, phase, code):
    """SIGTERM and a second Ctrl-C end it at once, the first Ctrl-C when the units in hand are committed."""
    driver = start_driver(folder, local=False, delay=3.0)
    wait_for_commits(folder, more=1, driver=driver)
    driver.send_signal(signals[0])
    for number in signals[1:]:
        wait_until_told(folder, "stopping")  # a wait of Ray looks for signals once a second: two would become one
        driver.send_signal(number)

    assert driver.wait(timeout=60) == code
    assert read_record(f"{folder}/run").phase == phase  # type: ignore[union-attr]
    assert not list((folder / "run").rglob(".*"))
    assert not (folder / "run/lease.json").exists()
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    assert tables(folder) == tables(undisturbed)


@pytest.fixture
def hasty(monkeypatch) -> None:
    monkeypatch.setattr(stops, "POLL", 0.02)


def stop_after(folder: Path, file: str) -> threading.Thread:
    """Ask a job to stop from another thread, when its run has a file that matches a pattern."""

    def ask() -> None:
        while not list((folder / "run").glob(file)):
            time.sleep(0.01)
        request_stop(str(folder / "run"))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


@pytest.mark.usefixtures("hasty", "ray_cluster")
def test_a_stop_ends_a_trial_that_finds_no_room(folder):
    config = job_config(folder, batch_size=0)
    nowhere = config.cluster.model_copy(update={"labels": {"pool": "spot"}})
    asking = stop_after(folder, "lease.json")
    with pytest.raises(StoppedError, match=r"to go on, run the same again\na worker was being tried"):
        bootstrap.run(config.model_copy(update={"cluster": nowhere}), build_fakes, NAMES)
    asking.join()

    assert list((folder / "run").iterdir()) == []


@pytest.mark.usefixtures("hasty", "ray_cluster")
@pytest.mark.parametrize("local", [True, False])
def test_a_stop_commits_what_is_in_hand_and_the_run_goes_on_to_the_same_bytes(folder, undisturbed, local):
    asking = stop_after(folder, "ledger/*/*/*.json")  # its first unit is committed
    with pytest.raises(StoppedError, match=r"to go on, run the same again\n3 shards, 0 left out, 0 samples d") as stop:
        bootstrap.run(job_config(folder, export=True), partial(build_fakes, delay=0.3), NAMES, local=local)
    asking.join()

    assert stop.value.exit_code == 4
    assert not [name for name in ("stop.json", "lease.json", "clean") if (folder / "run" / name).exists()]
    record = read_record(f"{folder}/run")
    assert record is not None
    assert record.phase == "stopped"
    assert 0 < record.done < 63
    summary = bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    assert f"{record.done} samples done before" in summary
    assert tables(folder) == tables(undisturbed)


def test_a_stop_at_once_ends_a_unit_in_the_middle(folder, undisturbed):
    driver = start_driver(folder, local=True, delay=0.3)
    wait_for_commits(folder, more=1, driver=driver)
    request_stop(str(folder / "run"), at_once=True)

    assert driver.wait(timeout=60) == 143
    assert read_record(f"{folder}/run").phase == "ended"  # type: ignore[union-attr]
    assert not [name for name in ("stop.json", "lease.json") if (folder / "run" / name).exists()]
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    assert tables(folder) == tables(undisturbed)


def test_a_full_disk_leaves_no_half_file_and_the_run_goes_on_when_there_is_room(folder, undisturbed):
    code = (
        "import resource, signal; from pathlib import Path\n"
        "from fakes import NAMES, build_fakes, job_config; from pipelines import bootstrap\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # writing past the limit then is an error, as on a full disk
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4500, 4500))\n"
        f"bootstrap.run(job_config(Path({str(folder)!r})), build_fakes, NAMES, local=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}

    full = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert full.returncode == 1
    assert "FailedUnitsError" in full.stderr
    assert "File too large" in full.stderr
    assert not [path for path in (folder / "run").rglob("*") if path.name.endswith(".partial")]

    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    assert tables(folder) == tables(undisturbed)


def test_a_second_driver_is_refused_while_the_first_is_at_work(folder, undisturbed):
    driver = start_driver(folder, local=True, delay=0.2)
    wait_for_commits(folder, more=1, driver=driver)

    with pytest.raises(RunError, match=rf"another driver is at work on this run: pid {driver.pid} on "):
        bootstrap.run(job_config(folder), build_nothing, NAMES, local=True)

    assert driver.wait() == 0
    assert tables(folder) == tables(undisturbed)
    assert not (folder / "run/lease.json").exists()


def test_sigterm_right_behind_the_lease_leaves_none_behind(folder, monkeypatch):
    """As do the other jobs; by the signal's own effect, the process would be gone, and its lease there."""
    monkeypatch.setattr(bootstrap, "heed_stop", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(SystemExit) as ending:
            bootstrap.run(job_config(folder), build_nothing, NAMES, local=True)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert ending.value.code == 143
    assert not (folder / "run/lease.json").exists()


def test_two_drivers_of_which_one_was_forced_corrupt_nothing(folder, undisturbed):
    driver = start_driver(folder, local=True, delay=0.05, renewed=3600)  # else it stops, on a slow machine, at that
    wait_for_commits(folder, more=1, driver=driver)

    bootstrap.run(job_config(folder), partial(build_fakes, delay=0.05), NAMES, local=True, force=True)

    assert driver.wait() == 0
    assert tables(folder) == tables(undisturbed)
    assert verify(load_run(f"{folder}/run")) == []


@pytest.mark.parametrize("local", [True, False])
def test_a_driver_that_has_lost_its_lease_ends_though_no_unit_does(folder, local):
    driver = start_driver(folder, local, delay=3600, renewed=0.02)
    wait_until(lambda: (folder / "run/journal.jsonl").exists(), driver)  # it is planned
    try:
        displace(f"{folder}/run", lambda: driver.poll() is not None)
    finally:
        driver.terminate()  # one that does not end would be at work for hours

    assert driver.wait() == 1
    wait_until_told(folder, "another driver has taken this run: pid ")
    assert not [path for path in (folder / "run").rglob("*") if path.name.endswith(".partial")]


def test_a_driver_that_has_lost_its_lease_leaves_the_files_in_the_making_to_the_other(folder, undisturbed):
    begun = folder / f"run/ledger/.{'0' * 32}.partial"

    def build_late(config: BootstrapConfig) -> CapFilt:
        """Let another driver take the run and begin a file."""
        other = hold_lease(str(folder / "run"), force=True)
        drivers.callback(other.__exit__, None, None, None)
        other.__enter__()
        begun.parent.mkdir(exist_ok=True)
        begun.write_bytes(b"half")
        return build_fakes(config)

    with ExitStack() as drivers, suppress(RunError):  # it stops if it comes to renew its lease
        bootstrap.run(job_config(folder), build_late, NAMES, local=True)

    assert begun.exists()


def test_a_driver_that_has_lost_its_lease_leaves_a_request_to_stop_to_the_other(folder):
    def build_late(config: BootstrapConfig) -> CapFilt:
        """Let another driver take the run and be asked to stop."""
        drivers.enter_context(hold_lease(str(folder / "run"), force=True))
        request_stop(str(folder / "run"))
        return build_fakes(config)

    with ExitStack() as drivers:
        with suppress(RunError, StoppedError):  # by its lease, or since it has seen the request itself
            bootstrap.run(job_config(folder), build_late, NAMES, local=True)
        assert stop_requested(str(folder / "run"))


def test_a_job_that_exports_nothing_leaves_the_files_in_the_making_to_an_export(folder, undisturbed):
    bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)
    (clean,) = (folder / "run/clean").iterdir()
    begun = clean / f".{'0' * 32}.partial"
    begun.write_bytes(b"half")

    bootstrap.run(job_config(folder, export=False), build_nothing, NAMES, local=True)
    assert begun.exists()
    bootstrap.run(job_config(folder, export=True), build_nothing, NAMES, local=True)
    assert not begun.exists()


def test_files_in_the_making_that_a_dead_worker_left_are_removed_and_no_others(folder, undisturbed):
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    ours = [f"run/{place}.{'0' * 32}.partial" for place in ("", "plan/", "ledger/", "ledger/00000/")]
    others = ["run/.notes", "run/.x.partial", f"run/clean/other-000/.{'0' * 32}.partial"]
    for name in ours + others:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"half")

    bootstrap.run(job_config(folder), build_nothing, NAMES, local=True)

    assert not [name for name in ours if (folder / name).exists()]
    assert all((folder / name).exists() for name in others)


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


def test_a_damaged_shard_can_be_skipped_or_read_as_far_as_it_goes(folder):
    cut(folder / "in/00001.tar")
    (folder / "in/00002.tar").write_bytes(b"<html>not found</html>")

    skipped = bootstrap.run(job_config(folder, damage="skip-shard"), build_fakes, NAMES, local=True)
    read = bootstrap.run(job_config(folder, damage="keep-readable"), build_fakes, NAMES, local=True)

    assert skipped.startswith("3 shards, 2 left out, 0 samples done before; 21 samples")
    assert read.startswith("3 shards, 1 left out, 21 samples done before; ")
    plan = {shard.id: shard for shard in load_run(f"{folder}/run").plan()}
    assert 0 < plan["00001"].samples < 21
    assert all(plan[id_].damage for id_ in ("00001", "00002"))


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

    with pytest.raises(FailedUnitsError, match=r"list\.csv: line 3: its quotes do not.*; mend these lines, or set"):
        bootstrap.run(config, build_fakes, NAMES, local=True)
    kept = bootstrap.run(config.model_copy(update={"damage": "keep-readable"}), build_fakes, NAMES, local=True)

    assert "5 samples: 4 scored, 1 failed (1 bad_row)" in kept


def test_files_that_come_or_go_are_refused_by_name(folder):
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    write_shard(folder / "in/00009.tar", [("red", "")])
    (folder / "in/00000.tar").unlink()

    with pytest.raises(RunError, match=r"gone: .*00000\.tar\n +new: .*00009\.tar"):
        bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)


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


def test_an_exported_run_is_a_valid_input_for_the_next_round(folder):
    summary = bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)
    (clean,) = (folder / "run/clean").iterdir()

    assert f"3 clean shards with 48 samples and 63 texts in {clean}" in summary
    assert (clean / "_SUCCESS").exists()
    again = job_config(folder, input=[str(clean)], run=str(folder / "run2"), round=1)
    assert "48 samples: 48 scored, 0 failed" in bootstrap.run(again, build_fakes, NAMES, local=True)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("local", [True, False])
def test_a_clean_shard_of_which_nothing_was_kept_is_a_valid_input_too(folder, local):
    write_shard(folder / "in/00001.tar", [("red", "click here")] * 3)
    bootstrap.run(job_config(folder), build_fakes, NAMES, local=True)
    web = ExportConfig(run=f"{folder}/run", policy=Policy(name="web", mix="web_only"))
    export.run(web)
    clean = load_run(f"{folder}/run").clean(web)

    again = job_config(folder, input=[clean], run=f"{folder}/run2", round=1, export=True)
    summary = bootstrap.run(again, build_fakes, NAMES, local=local)

    run = load_run(again.run)
    assert [(shard.samples > 0, shard.damage) for shard in run.plan()] == [(True, ""), (False, ""), (True, "")]
    assert "3 shards, 0 left out" in summary
    assert "3 clean shards with" in summary
    assert verify(run) == []
    empty = run.plan()[1]
    assert len(read_samples(run, empty)) == len(read_candidates(run, empty)) == 0
    assert summarise(open_run(again.run)).shards == 3
    assert scan([clean], again.images).unusable == {}
    assert look(again, lambda _: NAMES)[1].left_out == []


def test_a_run_may_hold_no_sample_at_all(folder):
    for path in sorted((folder / "in").iterdir()):
        write_shard(path, [])

    summary = bootstrap.run(job_config(folder, export=True), build_fakes, NAMES, local=True)

    assert "3 clean shards with 0 samples" in summary
    assert verify(load_run(f"{folder}/run")) == []
    assert summarise(open_run(f"{folder}/run")).samples == 0


@pytest.mark.usefixtures("ray_cluster")
def test_workers_export_the_same_bytes_as_one_process(tmp_path):
    for way in ("local", "ray"):
        mixed_shards(tmp_path / "in")
        config = job_config(tmp_path, run=str(tmp_path / way), export=True)
        bootstrap.run(config, build_fakes, NAMES, local=way == "local")

    def content(way: str) -> dict[str, bytes]:
        root = tmp_path / way / "clean"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    assert content("ray") == content("local")
    assert len(content("local")) == 3 * 3 + 3
