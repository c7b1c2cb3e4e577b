"""A bootstrap job that is killed, stopped or out of room: it goes on to the same bytes, and no half file is left."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from drivers import start_driver, tables, wait_for_commits, wait_until_told
from fakes import NAMES, build_dying, build_fakes, build_nothing, job_config, write_shard

from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.errors import StoppedError
from capfilt.runs import stop as stops
from capfilt.runs.status import read_status
from capfilt.runs.stop import request_stop
from pipelines import bootstrap

TESTS = Path(__file__).parent


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


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_worker_whose_models_find_no_memory_beside_those_of_the_dead_is_built_a_little_later(tmp_path, caplog):
    write_shard(tmp_path / "in/00000.tar", [("white", "snow")] * 9)
    (tmp_path / "notes").mkdir()
    config = job_config(tmp_path, cluster={"workers": 1, "cpus_per_worker": 0.5, "attempts": 2})

    told = bootstrap.run(config, partial(build_beside_the_dead, notes=tmp_path / "notes"), NAMES)

    assert len(list((tmp_path / "notes").glob("build*"))) == 3
    assert "again in 1 s: OSError: [Errno 12] no memory for the models" in caplog.text
    assert "9 samples: 9 scored, 0 failed" in told


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
    assert read_status(f"{folder}/run").phase == phase  # type: ignore[union-attr]
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
    record = read_status(f"{folder}/run")
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
    assert read_status(f"{folder}/run").phase == "ended"  # type: ignore[union-attr]
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
