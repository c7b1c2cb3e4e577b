"""Jobs on a Ray cluster, through its Jobs API: submit, find, follow and end them.

Ray refuses a job id that was used before. So an id consists of the folder that the job works on and a number, and the
next number is only given when the previous job has ended: two people cannot start a job twice, and whoever knows the
folder finds its jobs.
"""

import asyncio
import logging
import math
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ray.job_submission import JobDetails

from capfilt.display import local_time, redact
from capfilt.errors import JobError, NoAnswerError, StoppedError
from workers.dashboard import connect, in_a_line, told
from workers.submission import Submission, attempt_of, entrypoint, staged

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")  # states that a job stays in
POLL = 1.0  # seconds between two checks of a job that is waited for
PATIENCE = 600.0  # seconds without an answer after which waiting for a job ends; a dashboard restarts within a few
QUIET = 30.0  # seconds in which a log that is followed says nothing, after which the Jobs API is asked after its job

_STOPPED = (StoppedError.exit_code, 129, 143)  # exit codes of a driver that was asked to end, which Ray calls failed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as its cluster knows it. Times are in seconds since 1970."""

    id: str
    attempt: int
    state: str  # PENDING, RUNNING, SUCCEEDED, FAILED, or STOPPED, the last also by a request in the run folder
    message: str
    started: float
    ended: float | None
    exit_code: int | None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self.state in ENDED

    @property
    def summary(self) -> str:
        """The job in a line, for people; with the reason if its driver never started, so that there is no log."""
        code = "" if self.exit_code is None else f", exit code {self.exit_code}"
        why = f": {self.message}" if self.state == "FAILED" and self.exit_code is None else ""
        return f"{self.id}: {self.state}{code}, submitted {local_time(self.started)}{why}"

    def to_json(self) -> dict[str, object]:
        """Return the job as JSON values."""
        return asdict(self)


class Jobs:
    """The jobs of a cluster."""

    def __init__(self, address: str) -> None:
        """Connect to the dashboard of a cluster.

        Raises:
            ConfigError: the address is not that of a dashboard.
            NoAnswerError: nothing answers there.
        """
        self._client = connect(address)

    def of(self, folder: str) -> list[JobState]:
        """Return the jobs that worked on a folder, the newest first."""
        with told():
            found = [(job, attempt_of(job.submission_id or "", folder)) for job in self._client.list_jobs()]
        states = [_state(job, attempt) for job, attempt in found if attempt is not None]
        return sorted(states, key=lambda job: (job.started, job.attempt), reverse=True)

    def find(self, folder: str, attempt: int | None = None) -> JobState:
        """Return the newest job that is at work on a folder, or else the newest; with a number, of those that have it.

        Raises:
            JobError: there is none.
        """
        for job in sorted(self.of(folder), key=lambda job: job.is_over):
            if attempt in (None, job.attempt):
                return job
        what = "no job" if attempt is None else f"no job number {attempt}"
        raise JobError(
            f"{folder}: {what} of it on this cluster, which forgets its jobs when its head is replaced; its journal "
            "is shown without --address and RAY_API_SERVER_ADDRESS"
        )

    def at_work(self, folder: str) -> JobState | None:
        """Return the newest job of a folder that has not ended; None if all have."""
        return next((job for job in self.of(folder) if not job.is_over), None)

    def submit(self, submission: Submission, python: str, retries: int, *, code: bool) -> str:
        """Submit a job and return its id.

        Args:
            submission: the job.
            python: the interpreter, as the head of the cluster knows it.
            retries: how often its driver is started again if it dies.
            code: ship the code, too; else the nodes have it already.

        Raises:
            JobError: a job is at work on the folder, or the cluster does not take this one.
        """
        before = [job for job in self.of(submission.folder) if job.id.startswith(f"{submission.stem}-")]
        for job in before:
            if not job.is_over:
                raise JobError(
                    f"{submission.folder}: {job.id} is at work on it ({job.state}); wait until it ends, look at it "
                    "with capfilt status, or end it with capfilt stop"
                )
        name = f"{submission.stem}-{max((job.attempt for job in before), default=0) + 1}"
        command = entrypoint(submission, python, retries, Path.cwd())
        with staged(submission, code) as folder, told():
            environment = {"working_dir": str(folder)}
            metadata = {"capfilt_job": submission.job, "capfilt_folder": submission.folder}
            self._client.submit_job(entrypoint=command, submission_id=name, runtime_env=environment, metadata=metadata)
        return name

    def wait(self, name: str) -> JobState:
        """Wait for the end of a job and return it. This may take days, in which its dashboard may restart.

        Raises:
            NoAnswerError: the Jobs API has not answered for PATIENCE.
        """
        silence = _Silence(name)
        while True:
            try:
                job = self._look(name)
            except NoAnswerError as error:
                silence.bear(error)
            else:
                silence.end()
                if job.is_over:
                    return job
            time.sleep(POLL)

    def _look(self, name: str) -> JobState:
        with told():
            info = self._client.get_job_info(name)
        return _state(info, int(name.rpartition("-")[2]))

    def log(self, name: str) -> str:
        """Return all that a job has written, fit to be shown; where that is nothing, its state."""
        with told():
            text = _plain(self._client.get_job_logs(name))
        return text or f"{self._look(name).summary}\n"

    def follow(self, name: str) -> Iterator[str]:
        """Yield what a job has written and what it goes on to write, fit to be shown, until it ends; else its state.

        A log that breaks off, as it does when the dashboard restarts, is continued where it was.

        Raises:
            NoAnswerError: the Jobs API has not answered for PATIENCE.
        """
        silence, shown = _Silence(name), 0
        while True:
            try:
                for text in self._tail(name, shown):
                    silence.end()
                    shown += len(text)
                    yield _plain(text)
                job = self._look(name)
                if job.is_over:
                    yield "" if shown else f"{job.summary}\n"
                    return
                raise NoAnswerError("the cluster's Jobs API: the log ends before its job does")
            except NoAnswerError as error:
                silence.bear(error)
            time.sleep(POLL)

    def _tail(self, name: str, skip: int) -> Iterator[str]:
        """Yield what comes of a job's log after its first characters; "" where nothing came, and the API answers."""
        log, coming, over = self._client.tail_job_logs(name), None, False
        with asyncio.Runner() as runner, told():
            while True:
                coming = coming or runner.get_loop().create_task(anext(log, None))
                if not runner.run(asyncio.wait([coming], timeout=QUIET))[0]:
                    if over:  # what was left has had its time
                        return
                    over = self._look(name).is_over  # a connection may be gone without a sign
                    yield ""
                    continue
                text, coming = coming.result(), None
                if text is None:
                    return
                if len(text) > skip:
                    yield text[skip:]
                skip = max(0, skip - len(text))

    def end(self, name: str) -> None:
        """End a job at once: its driver gets SIGTERM, and some seconds later SIGKILL."""
        with told():
            self._client.stop_job(name)


class _Silence:
    """The time in which the Jobs API does not answer: logged once, and an error after PATIENCE."""

    def __init__(self, name: str) -> None:
        self._name, self._since = name, math.inf

    def bear(self, error: NoAnswerError) -> None:
        """Take note of a question without an answer; raise its error if the last answer is PATIENCE ago."""
        now = time.monotonic()
        if self._since > now:
            self._since = now
            logger.warning("%s: %s; retrying for %.0f minutes", self._name, error, PATIENCE / 60)
        elif now - self._since > PATIENCE:
            raise error

    def end(self) -> None:
        """Take note of an answer."""
        self._since = math.inf


def _plain(text: str) -> str:
    """Return what a job has written, fit to be shown: without the colours that Ray gives its notices in any log."""
    return redact(re.sub(r"\x1b\[[\d;]*m", "", text))


def _state(job: JobDetails, attempt: int) -> JobState:
    """Return what matters of Ray's own record of a job."""
    code = job.driver_exit_code
    status = str(getattr(job.status, "value", job.status))
    return JobState(
        id=job.submission_id,
        attempt=attempt,
        state="STOPPED" if status == "FAILED" and code in _STOPPED else status,
        message=in_a_line(job.message or ""),
        started=(job.start_time or 0) / 1000,
        ended=job.end_time / 1000 if job.end_time else None,
        exit_code=code,
    )
