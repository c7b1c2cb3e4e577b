"""Arguments and options that several commands share."""

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from capfilt.config import Config
    from capfilt.dry_run import DryRun
    from capfilt.query.opened import OpenRun

JOBS = ("bootstrap", "export", "pretrain", "finetune", "finetune_vqa", "finetune_nlvr2", "evaluate", "rounds", "demo")


class Finite(click.FloatRange):
    """A finite number in a range; click's own FloatRange takes nan and inf, too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with what is wrong with it."""
        if not math.isfinite(click.FLOAT.convert(value, param, ctx)):
            self.fail(f"{value} is not a finite number", param, ctx)
        number: float = super().convert(value, param, ctx)
        return number


existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
config_argument = click.argument("config", type=existing_file)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config key, nested ones with dots."
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Check what the job needs and show what it would do; nothing is written."
)
policy_option = click.option("--policy", type=existing_file, help="YAML of another policy than the run's own.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

share_option = click.option(
    "--share",
    type=Finite(0, 1, min_open=True),
    help="Look at this share of the shards. [default: as many as hold 6 million samples]",
)


def say_share(opened: "OpenRun") -> None:
    """Say on standard error that not all of a run is looked at, where that is so."""
    if opened.share < 1:
        click.echo(f"looking at {opened.extent}; --share 1 looks at all", err=True)


def say_nothing(opened: "OpenRun") -> None:
    """Say on standard error that there is nothing to look at, where that is so, and what to do."""
    if not opened.commits:
        click.echo(f"{opened.run.root}: {opened.nothing}", err=True)


def json_text(values: object) -> str:
    """Return values as JSON, as --json prints it."""
    return json.dumps(values, indent=2)


def plain_output() -> bool:
    """Return whether output must do without the characters of bars: it is no terminal, or not one for Unicode."""
    return not sys.stdout.isatty() or "utf" not in (sys.stdout.encoding or "").lower()


def show_dry_run(dry: "DryRun") -> NoReturn:
    """Print what a job would do, and end with exit code 1 if anything prevents it."""
    click.echo(str(dry))
    sys.exit(1 if dry.problems else 0)


def job_kind(job: str) -> "type[Config]":
    """Return the class of the configs of a job."""
    from capfilt.config import BootstrapConfig, Config, ExportConfig
    from capfilt.config.demo import DemoConfig
    from capfilt.config.evaluation import EvaluateConfig
    from capfilt.config.rounds import RoundsConfig
    from capfilt.config.tasks import NLVR2Config, VQAConfig
    from capfilt.config.training import FinetuneConfig, PretrainConfig

    kinds: tuple[type[Config], ...] = (BootstrapConfig, ExportConfig, PretrainConfig)
    kinds += (FinetuneConfig, VQAConfig, NLVR2Config, EvaluateConfig, RoundsConfig, DemoConfig)
    return dict(zip(JOBS, kinds, strict=True))[job]


def load_job(job: str, path: Path, overrides: tuple[str, ...]) -> "Config":
    """Return a config of a job; that of finetune is of the kind that its role asks for."""
    from capfilt.config import load
    from capfilt.config.tasks import load_finetuning

    return load_finetuning(path, overrides) if job == "finetune" else load(job_kind(job), path, overrides)
