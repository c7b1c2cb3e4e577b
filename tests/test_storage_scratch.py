"""A temporary folder goes with its process, also with one that is killed."""

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from capfilt.storage import scratch, staged
from capfilt.storage.scratch import Scratch

HOLDER = "from capfilt.storage.scratch import Scratch\nheld = Scratch()\nprint(held.name, flush=True)\ninput()"


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "YOUNG", -1.0)
    return tmp_path


def test_a_folder_goes_at_its_end_and_may_be_ended_twice(temporary):
    with Scratch() as name:
        assert Path(name).parent == temporary
        Path(name, "file").touch()
    ended = Scratch()
    ended.cleanup()
    ended.cleanup()
    assert list(temporary.iterdir()) == []


def test_one_that_a_killed_process_left_goes_with_the_next_and_no_other(temporary):
    environment = {**os.environ, "TMPDIR": str(temporary)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    elsewhere = temporary / "capfilt-elsewhere-1"
    elsewhere.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER], env=environment, text=True, **pipes) as holder:
        left = Path(holder.stdout.readline().strip())
        with Scratch() as name:
            assert {*temporary.iterdir()} == {left, elsewhere, Path(name)}
        holder.kill()
    with Scratch() as name:
        assert {*temporary.iterdir()} == {elsewhere, Path(name)}


def test_what_cannot_be_removed_at_its_end_fails_nothing_and_goes_later(temporary, monkeypatch):
    """As on NFS, where a file that is still mapped keeps its folder."""

    def not_empty(path: str, *_: object, **__: object) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    with monkeypatch.context() as broken, Scratch() as name:
        broken.setattr(os, "rmdir", not_empty)
    assert list(temporary.iterdir()) == [Path(name)]
    Scratch().cleanup()
    assert list(temporary.iterdir()) == []


def test_one_that_is_being_made_is_left_alone(temporary, monkeypatch):
    with Scratch() as name:
        prefix = name.rpartition("-")[0]
    made = Path(f"{prefix}-made")
    made.mkdir()
    monkeypatch.setattr(scratch, "YOUNG", 60.0)
    with Scratch():
        assert made.exists()
    monkeypatch.setattr(scratch, "YOUNG", -1.0)
    with Scratch():
        assert not made.exists()


def test_what_is_uploaded_is_written_to_one(temporary):
    with staged("memory://scratch/file") as partial:
        partial.write_bytes(b"data")
        assert partial.parent.parent == temporary
    assert list(temporary.iterdir()) == []
