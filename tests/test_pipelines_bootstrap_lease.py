"""A run of which another driver has the lease, or has taken it."""

import signal
from contextlib import ExitStack, suppress
from functools import partial

import pytest
from drivers import displace, start_driver, tables, wait_for_commits, wait_until, wait_until_told
from fakes import NAMES, build_fakes, build_nothing, job_config

from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.errors import CheckpointError, RunError, StoppedError
from capfilt.runs import load_run
from capfilt.runs.lease import hold_lease
from capfilt.runs.stop import request_stop, stop_requested
from capfilt.verify import verify
from pipelines import bootstrap


def test_a_second_driver_is_refused_while_the_first_is_at_work(folder, undisturbed):
    driver = start_driver(folder, local=True, delay=0.2)
    wait_for_commits(folder, more=1, driver=driver)

    with pytest.raises(RunError, match=rf"another driver is at work on this run: pid {driver.pid} on "):
        bootstrap.run(job_config(folder), build_nothing, NAMES, local=True)

    assert driver.wait() == 0
    assert tables(folder) == tables(undisturbed)
    assert not (folder / "run/lease.json").exists()


def test_sigterm_right_behind_the_lease_leaves_none_behind(folder, monkeypatch):
    """So it is for every job; by the signal's own effect, the process would be gone, and its lease there."""
    monkeypatch.setattr("workers.driving.heed_stop", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
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


def test_a_forced_driver_leaves_the_settings_of_the_one_at_work(folder):
    def cannot(config: BootstrapConfig) -> CapFilt:
        raise CheckpointError("filter: cannot be loaded here")

    with hold_lease(str(folder / "run")), pytest.raises(CheckpointError):
        bootstrap.run(job_config(folder), cannot, NAMES, local=True, force=True)

    assert len(load_run(f"{folder}/run").plan()) == 3


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
