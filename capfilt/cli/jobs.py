"""Jobs on a cluster, and the job at work on a run: capfilt submit, status, logs and stop."""

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capfilt.cli.options import json_option, json_text, load_job, set_option
from capfilt.display import CREDENTIALS, has_credentials, redact
from capfilt.errors import JobError, NoAnswerError, RunError

if TYPE_CHECKING:
    from capfilt.standing import Standing
    from workers.jobs import Jobs, JobState

SUBMITTED = ("bootstrap", "export", "pretrain", "finetune", "rounds")

_address = click.option(
    "--address",
    envvar="RAY_API_SERVER_ADDRESS",
    show_envvar=True,
    metavar="URL",
    help="URL of the dashboard of a Ray cluster, such as http://127.0.0.1:8265.",
)


@click.command(short_help="Submit a job to a Ray cluster.")
@click.argument("words", nargs=-1, required=True, metavar="[JOB] CONFIG")
@set_option
@_address
@click.option("--retries", type=click.IntRange(min=0), default=3, show_default=True, help="Restarts of a dead driver.")
@click.option("--retry-quarantined", is_flag=True, help="Redo shards with quarantined samples.")
@click.option("--force", is_flag=True, help="Start even if another driver seems to be at work on the run.")
@click.option("--wait", is_flag=True, help="Wait for the end of the job, and exit as it did.")
@click.option("--follow", is_flag=True, help="As --wait, and show what the job writes.")
@click.option("--python", default="python", show_default=True, help="Interpreter on the head that has Ray and torch.")
@click.option("--installed", is_flag=True, help="Run the capfilt that the nodes have, instead of shipping this one.")
def submit(
    words: tuple[str, ...],
    overrides: tuple[str, ...],
    address: str | None,
    retries: int,
    wait: bool,
    follow: bool,
    python: str,
    installed: bool,
    **flags: bool,
) -> None:
    """Submit JOB with CONFIG to a Ray cluster; JOB is bootstrap (the default), export, pretrain, finetune or rounds.

    The job runs on the cluster at --address, whatever cluster.address says, and outlives this command. While a job is
    at work on a run, another is refused; when it has ended, the next one goes on where it stopped. For rounds, the
    configs of its jobs are sent along.

    \b
    Example:
      capfilt submit my.yaml --address http://127.0.0.1:8265 --set cluster.workers=16
      capfilt submit pretrain configs/pretrain.yaml --address http://127.0.0.1:8265 --follow
    """
    job, path = _job_and_config(words)
    if address is None:
        raise click.UsageError("give the dashboard of the cluster: --address http://HOST:8265")
    given = [f"--{name.replace('_', '-')}" for name, set_ in flags.items() if set_]
    if given and job != "bootstrap":
        raise click.UsageError(f"{given[0]} is an option of bootstrap, and the job is {job}")
    config = load_job(job, path, overrides)
    from workers.submission import prepare

    submission = prepare(job, config, given)
    jobs = _jobs(address)
    name = jobs.submit(submission, python, retries, code=not installed)
    click.echo(f"submitted {name}")
    for command in ("status", "logs", "stop"):
        click.echo(f"  capfilt {command} {submission.folder} --address {address}")
    with _seen_again(submission.folder, address):
        for text in jobs.follow(name) if follow else ():
            click.echo(text, nl=False)
        if wait or follow:
            _exit_as(jobs.wait(name))


@click.command(short_help="Show how far a run is, and who works on it.")
@click.argument("run")
@_address
@json_option
def status(run: str, address: str | None, as_json: bool) -> None:
    """Show who is at work on RUN, how far it is, and what to do next. RUN may be a loop's folder, as for logs and stop.

    Reads the run folder and, with --address, asks the cluster that its job was submitted to.

    \b
    Example:
      capfilt status runs/cc12m
      capfilt status s3://bucket/cc12m --address http://127.0.0.1:8265 --json
    """
    from capfilt.standing import look_at, render_standing

    folder = _folder(run)
    found = _jobs(address).of(folder) if address else []
    standing = None
    try:
        standing = look_at(folder)
    except RunError:  # it may lie where only the cluster sees it
        if not found:
            raise
    if as_json:
        values = standing.to_json() if standing else {"run": folder, "state": None}
        click.echo(json_text(values | {"jobs": [job.to_json() for job in found]}))
        return
    submitted = any(not job.is_over for job in found)
    told = redact(render_standing(standing, submitted)) if standing else f"{folder}: no status can be seen from here"
    click.echo(told)
    for job in found:
        click.echo(f"  job       {job.summary}")


@click.command(short_help="Show the log of a job, or a run's journal.")
@click.argument("run")
@_address
@click.option("--follow", "-f", is_flag=True, help="Go on until the job ends.")
@click.option("--attempt", type=click.IntRange(min=1), help="Number of a job. [default: the newest at work, or of all]")
def logs(run: str, address: str | None, follow: bool, attempt: int | None) -> None:
    """Show what the job of RUN writes: with --address the log of its driver, without it the journal of the run folder.

    For a loop, the log is that of all its jobs, and the journal that of its current job, if that is a bootstrap.

    \b
    Example:
      capfilt logs runs/cc12m --address http://127.0.0.1:8265 --follow
    """
    folder = _folder(run)
    if address is None:
        if attempt is not None:
            raise click.UsageError("--attempt is the number of a job on a cluster: give its dashboard as --address")
        from capfilt.runs.journal import read_journal

        for line in read_journal(folder, follow):
            click.echo(redact(line))
        return
    jobs = _jobs(address)
    job = jobs.find(folder, attempt)
    if not follow:
        click.echo(jobs.log(job.id), nl=False)
        return
    with _seen_again(folder, address):
        for text in jobs.follow(job.id):
            click.echo(text, nl=False)


@click.command(short_help="Let a job finish its units in hand, and stop.")
@click.argument("run")
@_address
@click.option("--now", is_flag=True, help="End at once; what is in hand is lost, and done again when the run goes on.")
@click.option("--wait", is_flag=True, help="Wait until the driver has ended.")
def stop(run: str, address: str | None, now: bool, wait: bool) -> None:
    """Stop the job at work on RUN: the units in hand finish and are committed, and no other begins.

    A training writes its state and ends; a loop ends with its current job. A second stop, or --now, ends any job at
    once. Start or submit the job again to go on. The request is a file in the run folder, so it reaches the job
    wherever that runs. If no bootstrap is at work on RUN, its export is stopped.

    \b
    Example:
      capfilt stop runs/cc12m
      capfilt stop runs/pretrain --address http://127.0.0.1:8265 --now
    """
    from capfilt.standing import at_work

    folder, jobs = _folder(run), _jobs(address) if address else None
    job = jobs.at_work(folder) if jobs else None
    standing = at_work(folder)
    if standing is None and (job is None or not now):
        raise _nothing_to_stop(folder, job)
    at_once = _ask_driver(standing, now) if standing is not None else now
    if jobs and job and at_once:
        jobs.end(job.id)
        click.echo(f"{job.id}: ends at once")
    click.echo("run or submit the same again to go on" + ("" if at_once else "; stop again to end it at once"))
    while wait and standing is not None and at_work(standing.run) is not None:
        time.sleep(1)


def _job_and_config(words: tuple[str, ...]) -> tuple[str, Path]:
    """Return the job and the path of its config in the arguments of a submission."""
    job = words[0] if len(words) == 2 else "bootstrap"
    if len(words) > 2 or job not in SUBMITTED:
        known = ", ".join(SUBMITTED)
        raise click.UsageError(f"give [JOB] CONFIG, where JOB is one of {known}; found {' '.join(words)}")
    path = Path(words[-1])
    if not path.is_file():
        raise click.UsageError(f"{path}: no such file")
    return job, path


def _ask_driver(standing: "Standing", now: bool) -> bool:
    """Ask the driver at work to stop, and return whether at once, as it does when it was asked before."""
    from capfilt.runs.stop import request_stop

    at_once = now or standing.state == "stopping"
    request_stop(standing.run, at_once=at_once)
    click.echo(f"{standing.run}: {standing.driver} {'ends at once' if at_once else 'finishes what is in hand'}")
    return at_once


def _nothing_to_stop(folder: str, job: "JobState | None") -> Exception:
    if job is None:
        return JobError(f"{folder}: no job at work on it can be seen from here; capfilt status shows its state")
    return JobError(
        f"{folder}: no driver of it can be seen from here, but {job.id} is {job.state}; if its driver is about to "
        "begin or to end, try again soon; if only the cluster sees the folder, stop it there, or the job with --now"
    )


def _folder(run: str) -> str:
    """Return a run folder as other machines know it."""
    from capfilt.runs.lease import require_folder
    from capfilt.storage import absolute

    if has_credentials(run):
        raise RunError(f"{run}: {CREDENTIALS}")
    require_folder(run)
    return absolute(run)


def _jobs(address: str) -> "Jobs":
    from workers.jobs import Jobs  # Ray takes seconds to import

    return Jobs(address)


@contextmanager
def _seen_again(folder: str, address: str) -> Iterator[None]:
    """Tell how a job is looked at again where the cluster no longer answers."""
    try:
        yield
    except NoAnswerError as error:
        command = f"capfilt logs {shlex.quote(folder)} --address {address} --follow"
        raise NoAnswerError(f"{error}; the job goes on if its head does; to look again: {command}") from None


def _exit_as(job: "JobState") -> None:
    """Exit as a job did."""
    click.echo(f"{job.id}: {job.state}" + (f": {job.message}" if job.message else ""), err=True)
    if job.state != "SUCCEEDED":
        sys.exit(job.exit_code or 1)
