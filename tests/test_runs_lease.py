"""One driver on a run at a time; a dead one is no hindrance."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from capfilt.errors import RunError
from capfilt.runs import lease as leases
from capfilt.runs.lease import find_driver, hold_lease


def owner(root: object) -> dict[str, object]:
    return json.loads(Path(f"{root}/lease.json").read_text())


def rewrite(root: object, **changes: object) -> None:
    Path(f"{root}/lease.json").write_text(json.dumps(owner(root) | changes))


@pytest.fixture
def abandoned(tmp_path):
    """A lease of this process that nobody gave up."""
    with hold_lease(str(tmp_path)):
        kept = Path(tmp_path, "lease.json").read_text()
    Path(tmp_path, "lease.json").write_text(kept)
    return tmp_path


@pytest.fixture
def out_of_reach(tmp_path):
    """The folder of a run, and what puts it out of reach and back: a link to it that leads to a file meanwhile."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "file").touch()

    def reach(there: bool) -> None:
        (tmp_path / "link").symlink_to(tmp_path / ("disk" if there else "file"))
        (tmp_path / "link").replace(tmp_path / "run")

    reach(True)
    return tmp_path / "run", reach


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_driver_is_named_while_it_is_at_work_and_leaves_nothing(tmp_path):
    with hold_lease(str(tmp_path)) as lease:
        assert owner(tmp_path)["pid"] == os.getpid()
        lease.check()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("force", "remedy"), [(None, ""), (False, ", or bootstrap again with --force")])
def test_a_second_driver_is_refused_and_told_who_is_first(tmp_path, monkeypatch, force, remedy):
    monkeypatch.setattr("capfilt.runs.lease.time", SimpleNamespace(time=lambda: 1.8e9))  # which stands still
    with hold_lease(str(tmp_path)):
        with pytest.raises(RunError) as refusal, hold_lease(str(tmp_path), force):
            pass
        assert owner(tmp_path)["pid"] == os.getpid()

    message = str(refusal.value)
    assert message.startswith(f"{tmp_path}/lease.json: another driver is at work on this run: pid {os.getpid()} on ")
    assert "at work since 20" in message
    assert "last seen 0 s ago" in message
    assert message.endswith(f"If it is dead, wait 0:01:30{remedy}")
    assert "\n" not in message


@pytest.mark.parametrize("force", [False, True])
def test_a_file_where_a_folder_is_wanted_is_told(tmp_path, force):
    path = tmp_path / "my.yaml"
    path.write_text("seed: 1")

    with (
        pytest.raises(RunError, match=r"/my\.yaml: is a file; give the folder of a run$"),
        hold_lease(str(path), force),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_told():
    with (
        pytest.raises(RunError, match=r"^/proc/foo: cannot be made \(No such file or directory\); write elsewhere$"),
        hold_lease("/proc/foo"),
    ):
        pass


def test_an_error_in_the_job_gives_the_lease_up_too(tmp_path):
    with pytest.raises(KeyError), hold_lease(str(tmp_path)):
        raise KeyError

    assert list(tmp_path.iterdir()) == []


def test_a_signal_right_behind_the_file_gives_the_lease_up_too(tmp_path, monkeypatch):
    publish = leases.storage.publish

    def published(path: str, data: bytes) -> None:
        publish(path, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(leases.storage, "publish", published)
    with pytest.raises(KeyboardInterrupt), hold_lease(str(tmp_path)):
        pass

    assert list(tmp_path.iterdir()) == []


def test_a_dead_process_of_this_machine_is_succeeded_at_once(abandoned):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    rewrite(abandoned, pid=dead.pid)

    with hold_lease(str(abandoned)):
        assert owner(abandoned)["pid"] == os.getpid()


@pytest.mark.parametrize("place", [{"host": "elsewhere"}, {"processes": "pid:[7]"}])
def test_a_driver_elsewhere_is_succeeded_when_it_has_been_silent(abandoned, place):
    rewrite(abandoned, pid=2**22 + 1, **place)  # whether that pid runs here tells nothing

    with pytest.raises(RunError, match=r"another driver is at work"), hold_lease(str(abandoned)):
        pass
    rewrite(abandoned, renewed=time.time() - leases.EXPIRY - 1)
    with hold_lease(str(abandoned)):
        assert owner(abandoned)["pid"] == os.getpid()


def test_a_lease_whose_file_is_gone_is_nobody_elses(tmp_path):
    with hold_lease(str(tmp_path)) as lease:
        Path(tmp_path, "lease.json").unlink()
        assert lease.is_held


def test_a_forced_driver_takes_over_and_the_other_stops_at_its_next_renewal(tmp_path):
    with hold_lease(str(tmp_path)) as first, hold_lease(str(tmp_path), force=True) as second:
        assert (first.is_held, second.is_held) == (False, True)
        first.check()
        for told in (first.renew, first.check, first.confirm):
            with pytest.raises(RunError, match=r"another driver has taken this run: pid \d+ on .*; this one stops"):
                told()
        second.renew()
        second.check()


def test_a_driver_hears_that_its_lease_is_taken_and_its_job_ends_by_that_error(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_EVERY", 0.02)
    told = threading.Event()

    def displaced() -> bool:
        rewrite(tmp_path, id="another")  # each time, since a renewal in between may take it back
        return told.wait(0.01)

    def job() -> None:
        with hold_lease(str(tmp_path), lost=told.set):
            eventually(displaced)
            raise SystemExit  # as by the signal that lost sends in use

    with pytest.raises(RunError, match="another driver has taken this run"):
        job()


def test_a_driver_that_lost_its_lease_leaves_that_of_the_other(tmp_path):
    with hold_lease(str(tmp_path), force=True):
        first = hold_lease(str(tmp_path), force=True)
        first.__enter__()
        rewrite(tmp_path, id="another")
        first.__exit__(None, None, None)

        assert owner(tmp_path)["id"] == "another"


def test_a_lease_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_EVERY", 0.02)

    with hold_lease(str(tmp_path)):
        start = owner(tmp_path)["renewed"]
        eventually(lambda: owner(tmp_path)["renewed"] != start)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"[" * 100_000, b"\xff", b'{"pid": 1}'])
def test_a_file_that_says_nothing_is_no_hindrance(tmp_path, content):
    (tmp_path / "lease.json").write_bytes(content)

    with hold_lease(str(tmp_path)):
        assert owner(tmp_path)["pid"] == os.getpid()


@pytest.mark.parametrize("wrong", [{"renewed": "1"}, {"started": 1e300}, {"renewed": None}, {"pid": [7]}, {"host": 1}])
def test_nor_is_one_with_values_of_other_kinds(abandoned, wrong):
    rewrite(abandoned, **wrong)

    assert find_driver(str(abandoned)) is None
    with hold_lease(str(abandoned)):
        assert owner(abandoned)["pid"] == os.getpid()


def test_a_lease_that_says_more_as_of_a_later_version_is_a_lease(abandoned):
    rewrite(abandoned, version=2)

    with pytest.raises(RunError, match=r"another driver is at work"), hold_lease(str(abandoned)):
        pass


def test_a_folder_that_is_out_of_reach_for_a_while_ends_nothing(out_of_reach, monkeypatch, caplog):
    root, reach = out_of_reach
    monkeypatch.setattr(leases, "RENEW_EVERY", 0.02)
    lost: list[str] = []
    with hold_lease(str(root), lost=lambda: lost.append("lost")) as lease:
        reach(False)
        eventually(lambda: "the lease was not renewed: " in caplog.text)
        assert not lease.is_held  # or not to be told
        reach(True)
        before = owner(root)["renewed"]
        eventually(lambda: owner(root)["renewed"] != before)
        lease.check()

    assert lost == []


def test_a_lease_that_cannot_be_given_up_hides_no_error_of_the_job(out_of_reach, caplog):
    root, reach = out_of_reach

    def job() -> None:
        with hold_lease(str(root)):
            reach(False)
            raise KeyError

    with pytest.raises(KeyError):
        job()
    assert "the lease was not removed: " in caplog.text


def test_a_lease_can_lie_on_an_object_store():
    with hold_lease("memory://leased"), pytest.raises(RunError, match="another driver"), hold_lease("memory://leased"):
        pass
    with hold_lease("memory://leased"):
        pass
