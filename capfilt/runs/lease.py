"""One driver on a run at a time: a small file in the run folder says who is at work, and since when.

A lease keeps a cluster from doing everything twice; it is not a lock that results depend on. Units are committed
atomically and have the same bytes whoever writes them, so two drivers, if one was forced, corrupt nothing.

The driver renews its lease, and checks each time whether it is still its own; if it finds another's name, it stops. So
of two drivers that begin at the same instant, one is left. A driver that was killed leaves its lease: on its own
machine it counts as dead at once, on others when it has not renewed the lease for a while. The clocks of machines that
share a run have to agree to a few seconds.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter

from capfilt import storage
from capfilt.background import in_background
from capfilt.display import local_time
from capfilt.errors import RunError
from capfilt.runs.stop import forget_stop

RENEW_EVERY = 15.0  # seconds between two renewals
EXPIRY = 90.0  # seconds without a renewal after which a driver on another machine counts as dead

Moment = Annotated[float, Field(ge=0, le=1e11)]
"""Seconds since 1970, up to a year that datetime can express."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who is at work on a run: the content of lease.json."""

    __pydantic_config__ = ConfigDict(strict=True)

    id: str
    host: str
    pid: int
    processes: str  # the pid's namespace: containers on one host number their own processes
    started: Moment
    renewed: Moment

    @property
    def seems_alive(self) -> bool:
        """Whether the driver seems alive from here: its lease is fresh and, on this machine, its process exists."""
        here = (self.host, self.processes) == (socket.gethostname(), _processes())
        return time.time() - self.renewed < EXPIRY and (not here or _is_running(self.pid))

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, at work since {local_time(self.started)}"


class Lease:
    """The lease of this process on a run."""

    def __init__(self, path: str, owner: Owner) -> None:
        self._path, self._owner = path, owner
        self._usurper: Owner | None = None

    def check(self) -> None:
        """Do nothing while the lease is this driver's own, as far as its last renewal knows.

        Raises:
            RunError: another driver has taken it.
        """
        if self._usurper is not None:
            raise RunError(f"{self._path}: another driver has taken this run: {self._usurper}; this one stops")

    def confirm(self) -> None:
        """Read the lease again, also in a worker, and raise as check: a driver may be paused and not know of it."""
        found = _read(self._path)
        if found is not None and found.id != self._owner.id:
            self._usurper = found
        self.check()

    @property
    def is_held(self) -> bool:
        """Whether the lease is still this driver's own; False if it cannot be read."""
        try:
            found = _read(self._path)
        except OSError:
            return False
        return found is None or found.id == self._owner.id

    def take(self) -> None:
        """Write the lease, whoever holds it."""
        storage.publish(self._path, json.dumps(asdict(self._owner)).encode() + b"\n")

    def renew(self) -> None:
        """Record that this driver is still at work; raise as check."""
        self.confirm()
        self._owner = replace(self._owner, renewed=time.time())
        self.take()

    def give_up(self) -> None:
        """Remove the lease if it is this driver's own; if it cannot be removed, it will expire."""
        try:
            found = _read(self._path)
            if found is not None and found.id == self._owner.id:
                storage.remove(self._path)
        except OSError as error:  # must not hide the error that ends the job
            logger.warning("the lease was not removed: %s", error)


@contextmanager
def hold_lease(root: str, force: bool | None = None, lost: Callable[[], None] = lambda: None) -> Iterator[Lease]:
    """Be the only driver of a run within the block.

    Args:
        root: the run folder.
        force: take the lease from a driver that seems to be alive; that one stops at its next renewal. None where the
            job has no such option.
        lost: called, from another thread, when another driver has taken the lease. Lease.check raises RunError then,
            and if lost ends the block by SystemExit, it becomes that RunError.

    Raises:
        RunError: another driver is at work on the run, or the folder cannot be made.
    """
    path, now = _path(root), time.time()
    if force:
        require_folder(root)
    else:
        require_free(root, forcible=force is not None)
    forget_stop(root)  # before the lease is written: from then on a request is meant for this driver
    owner = Owner(uuid.uuid4().hex, socket.gethostname(), os.getpid(), _processes(), now, now)
    lease = Lease(path, owner)
    try:  # a signal may end the job as soon as the file is there
        try:
            lease.take()
        except FileNotFoundError as error:  # of a folder that was to be made, such as one in /proc
            raise RunError(f"{root}: cannot be made ({error.strerror}); write elsewhere") from None
        with in_background(partial(_keep, lease, lost)):
            try:
                yield lease
            except SystemExit:
                lease.check()
                raise
    finally:
        lease.give_up()


@contextmanager
def swept(lease: Lease, sweep: Callable[[], None]) -> Iterator[None]:
    """Sweep away what dead workers left of a run, before a job and after it, but not if another driver has taken it."""
    sweep()
    try:
        yield
    finally:  # also when a job is ended: its workers may have died in the middle of a file
        if lease.is_held:
            sweep()


def require_folder(root: str) -> None:
    """Raise RunError if the run folder's path is that of a file."""
    local = storage.local_path(root)
    if local is not None and local.is_file():
        raise RunError(f"{root}: is a file; give the folder of a run")


def require_free(root: str, *, forcible: bool = False) -> None:
    """Raise RunError if a driver is at work on a run, or the run folder's path is that of a file.

    The message names --force where the job is forcible.
    """
    require_folder(root)
    found, now = find_driver(root), time.time()
    if found is not None and found.seems_alive:
        wait, ago = timedelta(seconds=round(found.renewed + EXPIRY - now)), max(0, now - found.renewed)
        raise RunError(
            f"{_path(root)}: another driver is at work on this run: {found}, last seen {ago:.0f} s ago; let it finish "
            f"or end it. If it is dead, wait {wait}{', or bootstrap again with --force' if forcible else ''}"
        )


def find_driver(root: str) -> Owner | None:
    """Return the driver that holds the lease of a run, alive or not; None if nobody holds it."""
    return _read(_path(root))


def is_free(root: str) -> bool:
    """Return whether no driver seems to be at work on a run from here."""
    found = find_driver(root)
    return found is None or not found.seems_alive


def _keep(lease: Lease, lost: Callable[[], None], done: threading.Event) -> None:
    while not done.wait(RENEW_EVERY):
        try:
            lease.renew()
        except RunError:
            lost()
            return
        except OSError as error:  # the next renewal may do better
            logger.warning("the lease was not renewed: %s", error)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _processes() -> str:
    """Return the name of this process's pid namespace; empty where there are none."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _path(root: str) -> str:
    return storage.join(root, "lease.json")


def _read(path: str) -> Owner | None:
    """Return the owner in a lease; None if there is no lease, or it does not say who holds it."""
    try:
        return TypeAdapter(Owner).validate_json(storage.read_bytes(path))
    except FileNotFoundError:
        return None
    except ValueError:
        logger.warning("%s: is not a lease and is ignored; the next driver replaces it", path)
        return None
