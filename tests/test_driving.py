import pytest

from capfilt.errors import RunError
from capfilt.runs.lease import find_driver
from capfilt.runs.stop import request_stop, stop_requested
from workers.driving import driving


def test_a_job_has_one_driver_whose_lease_ends_with_the_block(tmp_path):
    root = str(tmp_path / "run")
    with driving(root) as (lease, stop):
        assert lease.is_held
        assert not stop.asked
        with pytest.raises(RunError, match="is at work"), driving(root):
            pytest.fail("a second driver was let in")

    assert find_driver(root) is None


def ask_and_fail(root: str) -> None:
    with driving(root):
        request_stop(root)
        assert stop_requested(root)
        raise KeyError


def test_a_request_from_before_is_not_heeded_and_the_lease_ends_with_an_error_too(tmp_path):
    root = str(tmp_path / "run")
    with pytest.raises(KeyError):
        ask_and_fail(root)

    assert find_driver(root) is None
    with driving(root) as (_, stop):
        assert not stop.asked


def test_files_in_the_making_that_a_dead_driver_left_in_the_folder_go(tmp_path):
    left, inner, other = (tmp_path / name for name in (f".{'0' * 32}.partial", f"in/.{'0' * 32}.partial", ".notes"))
    inner.parent.mkdir()
    for file in (left, inner, other):
        file.touch()

    with driving(str(tmp_path), force=True):
        assert left.exists()  # the driver that was displaced may be at it
    with driving(str(tmp_path)):
        assert not left.exists()
    assert inner.exists()
    assert other.exists()
