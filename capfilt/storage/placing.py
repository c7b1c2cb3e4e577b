"""Rename a finished local file to its name: atomically, durably, and with the mode that the umask gives."""

import os
from pathlib import Path


def mode_of_new(path: Path) -> int:
    """Return the mode that a new file gets at a path; os.umask could tell only by changing it for all threads."""
    try:
        path.touch()
        return path.stat().st_mode
    finally:
        path.unlink(missing_ok=True)


def place(partial: Path, path: Path, mode: int) -> None:
    """Give a file in the same folder its name and mode, so that they survive a power cut."""
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
