"""Putting a local file under its name: whole, to stay, and as open to others as the umask says."""

import os
from pathlib import Path


def mode_of_new(path: Path) -> int:
    """Return the mode that a new file gets at a path; os.umask tells it only by setting another for all threads."""
    path.touch()
    try:
        return path.stat().st_mode
    finally:
        path.unlink()


def place(partial: Path, path: Path, mode: int) -> None:
    """Give a file that lies in the same folder its name and mode, so that they outlive a power cut."""
    if partial.stat().st_mode != mode:  # some mounted stores refuse to set even the same one
        partial.chmod(mode)
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)  # for the new name itself


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
