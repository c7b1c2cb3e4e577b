"""How far a run is: a small record that its driver writes now and then, so that nobody has to count the ledger.

The record counts what was done since the driver was started. It is for people and dashboards, and no result depends
on it: it may be some seconds old, and lacks what a driver did just before it was killed.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from capfilt import storage
from capfilt.background import in_background
from capfilt.display import listed, redact
from capfilt.errors import FailedUnitsError, StoppedError
from capfilt.runs.lease import Moment
from capfilt.tally import Tally

WRITE_EVERY = 10.0  # seconds between two records
_TOLD = 3  # failures that the record names; the journal holds all of them

Phase = Literal["starting", "bootstrap", "export", "rounds", "training", "done", "partly", "stopped", "failed", "ended"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StatusRecord:
    """What a driver last wrote. Times are seconds since 1970; counts begin at this start, except samples and done."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    started: Moment
    time: Moment
    phase: Phase = "starting"  # partly: done but for units or shards that failed; ended: by a signal
    samples: int = 0  # of the run
    done: int = 0  # samples, including those done before this start
    done_before: int = 0
    units: int = 0  # committed
    units_from: Moment = 0.0  # when the first unit was begun; 0 until then
    units_until: Moment = 0.0  # when the last unit was done; 0 until then
    statuses: dict[str, int] = field(default_factory=dict)  # samples by status
    candidates: dict[str, int] = field(default_factory=dict)  # texts by source
    kept: dict[str, int] = field(default_factory=dict)  # of the candidates
    reason: str = ""  # why it failed or stopped; if partly done, a line for each of the first failures
    ready: int = 0  # workers with their models loaded
    wanted: int = 0  # workers that the job asks for
    jobs: int = 0  # of a loop, which counts jobs instead of samples
    jobs_done: int = 0
    job: str = ""  # the one that a loop has reached: its folder, relative to the loop's

    @property
    def rate(self) -> float:
        """Samples a second while there were units, including the loading of the models."""
        seconds = (self.units_until or self.time) - (self.units_from or self.started)
        return (self.done - self.done_before) / max(seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all samples are scored, at the rate since this start; None while that is unknown."""
        return (self.samples - self.done) / self.rate if self.phase == "bootstrap" and self.rate else None


class Board:
    """Where a driver notes how far it is. A thread writes the record, so that a slow store does not delay the job."""

    def __init__(self, root: str, is_ours: Callable[[], bool] = lambda: True) -> None:
        self._path, self._is_ours = status_path(root), is_ours
        now = time.time()
        self.record = StatusRecord(now, now)

    def begin(self, samples: int, done: int) -> None:
        """Note that the units are begun, and how many of the run's samples were done before."""
        self._note(phase="bootstrap", samples=samples, done=done, done_before=done, units_from=time.time())

    def add(self, samples: int, tally: Tally) -> None:
        """Note that a unit is committed, and the counts since this start."""
        counts = {"statuses": dict(tally.statuses), "candidates": dict(tally.candidates), "kept": dict(tally.kept)}
        self._note(done=self.record.done + samples, units=self.record.units + 1, **counts)

    def staff(self, ready: int, wanted: int) -> None:
        """Note how many workers have their models loaded, of those that the job asks for."""
        self._note(ready=ready, wanted=wanted)

    def enter(self, job: str, done: int, jobs: int) -> None:
        """Note that a loop has reached a job, and how many jobs are done; this is written at once, since it is rare."""
        self._note(phase="rounds", job=job, jobs_done=done, jobs=jobs)
        self.write()

    def set_phase(self, phase: Phase, reason: str = "") -> None:
        """Note that another phase has begun, or that the job has ended."""
        if self.record.phase == "bootstrap":
            self._note(units_until=time.time())
        self._note(phase=phase, reason=reason)

    def write(self) -> None:
        """Write the record, whether or not it has changed: its age shows that the driver is alive.

        If another driver has taken the run, its record is not overwritten.
        """
        if not self._is_ours():
            return
        at_work = self.record.phase in ("bootstrap", "export", "rounds", "training")
        record = replace(self.record, time=time.time()) if at_work else self.record
        data = json.dumps(asdict(record)).encode() + b"\n"
        try:
            storage.publish(self._path, data)
        except OSError as error:  # the next one may succeed, and nothing depends on it
            if not _overwrite(self._path, data):
                logger.warning("the status was not written: %s", error)

    def _note(self, **changes: object) -> None:
        self.record = replace(self.record, time=time.time(), **changes)  # type: ignore[arg-type]


@contextmanager
def keep_status(root: str, is_ours: Callable[[], bool] = lambda: True) -> Iterator[Board]:
    """Write a record of the job into its run folder every few seconds, and its outcome at the end.

    Args:
        root: the run folder.
        is_ours: returns whether the run is still this driver's.
    """
    board = Board(root, is_ours)
    board.write()
    try:
        with in_background(partial(_keep, board)):
            yield board
        board.set_phase("done")
    except BaseException as error:  # whatever ends the job, also an interrupt, is recorded
        board.set_phase(_end(error), _reason(error))
        raise
    finally:
        board.write()


def read_status(root: str) -> StatusRecord | None:
    """Return what the last driver of a run wrote; None if there is no record that can be read."""
    try:
        return TypeAdapter(StatusRecord).validate_json(storage.read_bytes(status_path(root)))
    except FileNotFoundError:
        return None
    except ValueError:
        logger.warning("%s: is not a status record and is ignored", status_path(root))
        return None


def job_of(root: str) -> str:
    """Return the folder of the job that a loop has reached; for a job, its own folder."""
    record = read_status(root)
    return storage.join(root, record.job) if record is not None and record.job else root


def status_path(root: str) -> str:
    """Return the path of the record of a run."""
    return storage.join(root, "status.json")


def _overwrite(path: str, data: bytes) -> bool:
    """Write over a local record where it lies, which a full disk lets be done, and return whether it is done."""
    local = storage.local_path(path)
    try:
        if local is not None:
            with local.open("r+b") as file:
                file.write(data)
                file.truncate()
    except OSError:
        return False
    return local is not None


def _end(error: BaseException) -> Phase:
    if isinstance(error, StoppedError):
        return "stopped"
    if isinstance(error, FailedUnitsError):
        return "partly"
    return "failed" if isinstance(error, Exception) else "ended"


def _reason(error: BaseException) -> str:
    if not isinstance(error, FailedUnitsError):
        return _first_line(str(error))
    failures = [_first_line(failure) for failure in error.failed]
    return "\n".join(listed(failures, _TOLD, "and {:,} more, which capfilt logs shows"))


def _first_line(text: str) -> str:
    return redact(text).partition("\n")[0]


def _keep(board: Board, done: threading.Event) -> None:
    while not done.wait(WRITE_EVERY):
        board.write()
