"""Training on Ray: Ray Train starts the workers and connects them, the library's loop trains.

What goes wrong, and what becomes of it:

    a worker dies, or raises anything       all start again from the last state, a limited number of times
    Ray Train itself fails                  the same
    a node is taken away                    the same, without being counted (Ray Train's own rule)
    any of these after the run's end        nothing: the checkpoint is whole
    the cluster has no room                 the job waits, and says for what
    an error that the user can fix          the job stops with that error at once
    the driver dies                         its workers end with it; the same command goes on

Ray Train's own retries are off: they are counted over the whole job, and repeat what cannot succeed. Here the count
begins again with each state, so that a job of weeks survives many failures, and one that makes no progress stops.
"""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import fsspec
import pyarrow.fs
import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.util import placement_group_table

from capfilt.background import in_background
from capfilt.config.training import TrainingCluster
from capfilt.errors import PASSING, CapfiltError, WorkerError
from capfilt.logs import LogSettings, say
from capfilt.retries import may_pass
from capfilt.storage import absolute, exists, join, remove_folder
from capfilt.training.folder import TrainingRun
from workers.session import asked_and_free, session

TOLD_EVERY = 30.0  # seconds between two lines about the progress

logger = logging.getLogger(__name__)


def train_on_workers(work: Callable[[], None], run: TrainingRun, cluster: TrainingCluster) -> None:
    """Call work on each worker, and again from the run's last state if one fails, until all have finished.

    Raises:
        CapfiltError: the one that a worker raised.
        WorkerError: the workers failed cluster.attempts times in a row, and no state was written in between; its exit
            code is PASSING if a disk or store may recover.
    """
    with session(cluster.asked), in_background(partial(_tell, run, cluster)):
        failures, newest = 0, run.newest
        while (failure := _attempt(work, run, cluster)) is not None:
            if run.finished:  # its states are gone: another attempt would train all of it again
                logger.warning("%s: the training is done; after its end, %s", run.folder, failure)
                break
            failures = failures + 1 if run.newest == newest else 1
            newest = run.newest
            if failures >= cluster.attempts:
                error = WorkerError(
                    f"{run.folder}: failed {failures} times in a row at the state of step {newest}: {failure}"
                )
                error.exit_code = PASSING if failure.passing else error.exit_code
                raise error
            say(f"{run.folder}: goes on from the state of step {newest}, since {failure}")
        remove_folder(join(run.folder, "ray"))


class _Failure(NamedTuple):
    """Why an attempt failed."""

    reason: str
    passing: bool  # whether a disk or store may recover

    def __str__(self) -> str:
        return self.reason


def _attempt(work: Callable[[], None], run: TrainingRun, cluster: TrainingCluster) -> _Failure | None:
    """Start the workers and let them train; return why they failed, or None when they have finished."""
    home = str(Path.cwd())
    trainer = TorchTrainer(
        partial(_work_in, home, LogSettings.here(), work),
        scaling_config=ScalingConfig(
            num_workers=cluster.workers,
            use_gpu=cluster.gpus_per_worker > 0,
            resources_per_worker={"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker},
        ),
        run_config=_notes(run),
    )
    # Ray Train's own handler of Ctrl-C exits without a word, and stays when the training is over.
    trainer._register_sigint_handler = lambda controller: None
    try:
        trainer.fit()
    except WorkerGroupError as error:
        causes = error.worker_failures
        for cause in causes.values():
            if isinstance(cause, CapfiltError):
                raise cause from error
        reason = "; ".join(f"worker {rank}: {_line(cause)}" for rank, cause in causes.items())
        return _Failure(reason, any(map(_passing, causes.values())))  # the other workers only lost that one
    except (TrainingFailedError, RayError) as error:
        cause = getattr(error, "controller_failure", None) or getattr(error, "cause", None) or error
        return _Failure(f"Ray Train: {_line(cause)}", _passing(cause))
    return None


def _passing(cause: Exception) -> bool:
    return isinstance(cause, OSError) and may_pass(cause)


def _work_in(home: str, logs: LogSettings, work: Callable[[], None]) -> None:
    """Work in a folder of the same path as the driver's, if there is one, so that relative paths mean the same."""
    logs.apply()
    if Path(home).is_dir():
        os.chdir(home)
    work()


def _notes(run: TrainingRun) -> RunConfig:
    """Let Ray Train keep its own files in the run's folder, not in the home folder, its default."""
    store, path = fsspec.core.url_to_fs(absolute(run.folder))
    files = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(store))
    return RunConfig(
        name="ray", storage_path=path, storage_filesystem=files, failure_config=FailureConfig(max_failures=0)
    )


def _tell(run: TrainingRun, cluster: TrainingCluster, done: threading.Event) -> None:
    """Report the progress of the run now and then; the workers' own progress bar is on another machine."""
    before = ""
    while not done.wait(TOLD_EVERY):
        try:
            news = _starved(cluster) or _newest(run)
        except (RuntimeError, OSError, ValueError, RayError) as error:  # the next look may succeed
            logger.warning("%s: its progress cannot be read: %s", run.folder, _line(error))
            continue
        if news not in ("", before):
            before = news
            say(news)


def _newest(run: TrainingRun) -> str:
    """Return the newest line of the run's metrics, or "" if there is none."""
    rows = run.read_metrics() if exists(run.metrics) else []
    return ", ".join(f"{name} {value:g}" for name, value in rows[-1].items()) if rows else ""


def _starved(cluster: TrainingCluster) -> str:
    """Return what this job's workers wait for, or "". Ray Train asks for the room of all of them at once."""
    job = ray.get_runtime_context().get_job_id()  # which ends the ids of all that belongs to it
    groups = placement_group_table().values()
    if not any(group["state"] == "PENDING" and group["placement_group_id"].endswith(job) for group in groups):
        return ""
    return f"no worker can start yet; {asked_and_free(cluster.asked)}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
