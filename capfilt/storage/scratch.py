"""Temporary folders that no killed process leaves for ever.

A process that is killed, as workers on Ray are at the end of each job, cannot remove its own. So it holds a lock on it,
which ends with the process, and whoever makes another one on this machine removes those that nobody holds.
"""

import fcntl
import os
import shutil
import socket
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

YOUNG = 60.0  # seconds since its last change in which a folder without a lock may be about to get it


class Scratch(tempfile.TemporaryDirectory[str]):
    """A temporary folder, removed at its end, at that of the process, or some time after the process was killed."""

    def __init__(self) -> None:
        prefix = f"capfilt-{socket.gethostname()}-"  # machines may share the disk, but not know each other's locks
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            _remove_unheld(left)
        # What cannot be removed at its end must not fail the job: it is removed later, like that of a killed process.
        super().__init__(prefix=prefix, ignore_cleanup_errors=True)
        handle = os.open(self.name, os.O_RDONLY)
        self._release = weakref.finalize(self, os.close, handle)
        with suppress(OSError):  # a disk without locks: then nobody else gets one either
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def cleanup(self) -> None:
        """Remove the folder."""
        super().cleanup()
        self._release()


def _remove_unheld(folder: Path) -> None:
    with suppress(OSError):  # held, gone meanwhile, or another user's
        if time.time() - folder.stat().st_mtime < YOUNG:
            return
        handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
