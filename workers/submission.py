"""What is submitted to a cluster as a job: its name, its settings, and the code that it runs.

The settings are shipped resolved, as one file, which includes overrides and, for a loop, the settings of its jobs: no
file of the submitter is looked for on the cluster. The three packages, a megabyte, are shipped with it, so that
driver and workers run the code that checked the settings. Everything else (Python, Ray, torch) is what the nodes have.
No environment variable is shipped: whoever sees the dashboard sees all of a job's runtime environment.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from capfilt import storage
from capfilt.config import Config, ExportConfig, dump
from capfilt.config.rounds import RoundsConfig
from capfilt.errors import ConfigError
from capfilt.fingerprint import fingerprint
from capfilt.rounds import read_jobs, rounds
from capfilt.runs import Run
from capfilt.storage.scratch import Scratch

PACKAGES = ("capfilt", "workers", "pipelines")
SETTINGS = "job.yaml"
_FOLDERS = ("run", "output")  # keys that name where a job leaves its results


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that can be submitted to a cluster."""

    job: str  # the command: bootstrap, export, pretrain, finetune or rounds
    config: Config  # with the results' folder absolute, and with the cluster it is submitted to
    folder: str  # where the results are left
    flags: tuple[str, ...] = ()  # of the command

    @property
    def stem(self) -> str:
        """The submission id without the number of the attempt; the same for all attempts at one folder."""
        return f"capfilt-{self.job}-{folder_id(self.folder)}"

    @property
    def asked_in(self) -> str:
        """The folder in which its driver is asked to stop: its own or, for an export, the export's within its run's."""
        return Run(self.folder, "").exporting(self.config) if isinstance(self.config, ExportConfig) else self.folder


def folder_id(folder: str) -> str:
    """Return the part that the submission ids of a folder's jobs share: its name, and a hash of its path."""
    path = storage.absolute(folder).rstrip("/")
    name = re.sub(r"[^A-Za-z0-9]+", "-", path.rpartition("/")[2]).strip("-")[:40] or "run"
    return f"{name}-{fingerprint(path)}"


def attempt_of(submission_id: str, folder: str) -> int | None:
    """Return the number of the attempt in a submission id of a folder's job; None for any other id."""
    found = re.fullmatch(rf"capfilt-[a-z]+-{re.escape(folder_id(folder))}-(\d+)", submission_id)
    return None if found is None else int(found[1])


def prepare(job: str, config: Config, flags: Sequence[str] = ()) -> Submission:
    """Return a job, with the flags of its command, as it runs on the cluster that it is submitted to.

    Raises:
        ConfigError: its settings have a ray:// address, or the files of a loop do not fit together.
    """
    key = next(name for name in _FOLDERS if name in type(config).model_fields)
    folder = storage.absolute(getattr(config, key))
    config = config.model_copy(update={key: folder})
    config = _with_jobs(config) if isinstance(config, RoundsConfig) else _on_cluster(config)
    return Submission(job, config, folder, tuple(flags))


def _with_jobs(config: RoundsConfig) -> RoundsConfig:
    """Return a loop with the settings of its jobs in place of their files."""
    rounds(config)  # raises what does not fit
    jobs = read_jobs(config, 0, config.start)
    names = ("captioner", "filter", "bootstrap", "pretrain")
    return config.model_copy(
        update={name: _on_cluster(getattr(jobs, name), f"{name}: ").model_dump(mode="json") for name in names}
    )


def _on_cluster(config: Config, where: str = "") -> Config:
    """Return a job's settings with the cluster that it is submitted to; an error begins with where."""
    changes: dict[str, object] = {}
    cluster = getattr(config, "cluster", None)
    if cluster is not None:
        _check_address(cluster.address, where)
        changes["cluster"] = cluster.model_copy(update={"address": "auto"})
    if "address" in type(config).model_fields:
        changes["address"] = "auto"
    return config.model_copy(update=changes)


def _check_address(address: str, where: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"{where}cluster.address: {address} is for drivers outside of the cluster; a submitted job runs inside of "
            "it: leave cluster.address out, and give the dashboard's URL as --address"
        )


@contextmanager
def staged(submission: Submission, code: bool) -> Iterator[Path]:
    """Yield a folder that holds what is shipped: the settings and, if asked for, the code."""
    with Scratch() as name:
        folder = Path(name)
        (folder / SETTINGS).write_text(dump(submission.config), encoding="utf-8")
        for package in PACKAGES if code else ():
            source = Path(str(sys.modules["workers"].__file__)).parents[1] / package
            shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        yield folder


def entrypoint(submission: Submission, python: str, retries: int, folder: Path) -> str:
    """Return the command line of a job; folder is the one that relative paths in the settings start from."""
    words = [python, "-m", "workers.entrypoint", submission.job, SETTINGS, "--asked-in", submission.asked_in]
    words += ["--folder", str(folder), "--retries", str(retries), *submission.flags]
    return shlex.join(words)
