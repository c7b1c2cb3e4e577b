"""The capfilt command. Each command loads a config, runs one job and prints its summary."""

import errno
import signal
import sys
from pathlib import Path

import click

from capfilt.cli.checkpoint import checkpoint
from capfilt.cli.decide import calibrate, recut
from capfilt.cli.jobs import logs, status, stop, submit
from capfilt.cli.look import inspect, report
from capfilt.cli.options import (
    JOBS,
    config_argument,
    dry_run_option,
    existing_file,
    job_kind,
    json_option,
    json_text,
    load_job,
    set_option,
    show_dry_run,
)
from capfilt.cli.plan import plan
from capfilt.cli.scan import scan
from capfilt.cli.stats import compare, stats
from capfilt.cli.train import evaluate, finetune, pretrain, rounds
from capfilt.display import redact
from capfilt.errors import PASSING, CapfiltError, StoppedError
from capfilt.logs import STYLES, Style, configure, say_error
from capfilt.retries import may_pass
from capfilt.signals import exit_on_sigterm

_RESUMED = ("bootstrap", "demo", "export", "finetune", "pretrain", "recut", "rounds")
_ENDED = "ended at once; run the same again to go on"


class _Group(click.Group):
    """Shows an error that the user can fix as one line, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            with exit_on_sigterm():  # else temporary folders would stay
                return super().invoke(ctx)
        except KeyboardInterrupt:
            if ctx.invoked_subcommand not in _RESUMED:
                raise
            say_error(_ENDED)
            ctx.exit(1)
        except SystemExit as end:
            if end.code in (128 + signal.SIGHUP, 128 + signal.SIGTERM) and ctx.invoked_subcommand in _RESUMED:
                say_error(_ENDED)
            raise
        except (CapfiltError, OSError) as error:
            if isinstance(error, BrokenPipeError) and error.filename is None:
                raise  # who reads the output has seen enough of it, as head has: click ends in silence
            word = "" if isinstance(error, StoppedError) else "Error: "
            say_error(f"{word}{error}{_remedy(error)}")
            if isinstance(error, CapfiltError):
                ctx.exit(error.exit_code)
            ctx.exit(PASSING if may_pass(error) else CapfiltError.exit_code)


def _remedy(error: Exception) -> str:
    read_only = isinstance(error, OSError) and error.errno == errno.EROFS
    return "; make it writable, or write elsewhere" if read_only else ""


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="capfilt")
@click.option(
    "--log-format",
    type=click.Choice(STYLES),
    default="text",
    show_default=True,
    envvar="CAPFILT_LOG_FORMAT",
    show_envvar=True,
    help="Format of progress and warnings, one line each, on standard error.",
)
def cli(log_format: Style) -> None:
    """Caption and filter noisy web image-text shards, and train on what is kept.

    Exit codes: 0 done, 1 an error to fix, 2 a wrong command line, 3 some shards failed and all others are done,
    4 stopped as asked, 75 a disk, a store or a cluster did not answer and may do so later.
    """
    configure(log_format)


@cli.command(short_help="Caption and score shards; write what is kept.")
@config_argument
@set_option
@click.option("--local", is_flag=True, help="Run in this process, without Ray; the result is the same.")
@click.option("--force", is_flag=True, help="Start even if another driver seems to be at work on the run.")
@click.option("--retry-quarantined", is_flag=True, help="Redo shards with quarantined samples, these included.")
@dry_run_option
def bootstrap(config: Path, overrides: tuple[str, ...], dry_run: bool, **options: bool) -> None:
    """Caption and score every sample of the shards named in CONFIG, and export what the policy keeps.

    What is committed is skipped, so the same command resumes a stopped run.

    \b
    Example:
      capfilt bootstrap configs/bootstrap.yaml --set cluster.workers=8
    """
    from capfilt.config import BootstrapConfig, load

    settings = load(BootstrapConfig, config, overrides)
    from capfilt.models import build_models, checkpoint_hashes, describe_models
    from pipelines import bootstrap as job
    from pipelines import bootstrap_dry_run

    if dry_run:
        show_dry_run(bootstrap_dry_run.dry_run(settings, describe_models, checkpoint_hashes, **options))
    click.echo(job.run(settings, build_models, checkpoint_hashes(settings), **options))


@cli.command()
@config_argument
@set_option
@dry_run_option
def export(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Write the clean shards of a finished run under another policy. No model is loaded.

    \b
    Example:
      capfilt export configs/export.yaml --set policy.web_itm=0.7 --set policy.name=strict
    """
    from capfilt.config import ExportConfig, load
    from pipelines import export as job

    settings = load(ExportConfig, config, overrides)
    if dry_run:
        show_dry_run(job.dry_run(settings))
    click.echo(job.run(settings))


@cli.command(short_help="Check every file of a run.")
@click.argument("run")
@json_option
def verify(run: str, as_json: bool) -> None:
    """Check every file of RUN: hashes, counts, nothing missing, nothing left over. Exit code 1 if not.

    \b
    Example:
      capfilt verify runs/cc12m
    """
    from capfilt.runs import load_run
    from capfilt.standing import at_work
    from capfilt.verify import verify as check

    found = load_run(run)
    before = at_work(found.root)  # a driver that ends meanwhile may be why a file was missing
    problems = check(found)
    if as_json:
        click.echo(json_text({"run": run, "problems": problems}))
    else:
        click.echo(redact("\n".join(problems)) or f"{run}: every file is whole, every sample is accounted for")
    if problems and (standing := at_work(found.root) or before):
        click.echo(f"{standing.driver} is at work on it: check again when it has ended", err=True)
    sys.exit(1 if problems else 0)


@cli.command("config", short_help="Show the keys of a job; check a config.")
@click.argument("job", type=click.Choice(JOBS), metavar="JOB")  # else an error repeats the list three times
@click.argument("config", required=False, type=existing_file)
@set_option
def show_config(job: str, config: Path | None, overrides: tuple[str, ...]) -> None:
    """Show every key of a JOB with its default and meaning; with CONFIG, check it and show its values.

    JOB is bootstrap, export, pretrain, finetune, finetune_vqa, finetune_nlvr2, evaluate, rounds or demo.

    \b
    Example:
      capfilt config bootstrap
      capfilt config bootstrap configs/bootstrap.yaml --set seed=1
    """
    from capfilt.config import describe, dump

    click.echo(dump(load_job(job, config, overrides)) if config else describe(job_kind(job)), nl=False)


@cli.command(short_help="The whole loop on a small rendered world.")
@click.argument("config", default="configs/demo.yaml", type=existing_file)
@set_option
@json_option
@dry_run_option
def demo(config: Path, overrides: tuple[str, ...], as_json: bool, dry_run: bool) -> None:
    """Render a small world, train a captioner and a filter on it, and run the main job, on this machine alone.

    Without CONFIG it is configs/demo.yaml, which a checkout of capfilt has.

    \b
    Example:
      capfilt demo configs/demo.yaml --set output=demo
    """
    from capfilt.config import load
    from capfilt.config.demo import DemoConfig

    settings = load(DemoConfig, config, overrides)
    from pipelines import demo as job

    if dry_run:
        show_dry_run(job.dry_run(settings))
    figures = job.run(settings, lambda text: click.echo(text, err=as_json))
    if as_json:
        click.echo(json_text(figures))


for command in (
    *(calibrate, checkpoint, compare, evaluate, finetune, inspect, logs, plan, pretrain),
    *(recut, report, rounds, scan, stats, status, stop, submit),
):
    cli.add_command(command)
