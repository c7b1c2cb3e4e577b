"""The command that forecasts what a bootstrap will take: capfilt plan."""

import shlex
from pathlib import Path

import click

from capfilt.cli.options import Finite, config_argument, json_option, json_text, set_option


@click.command(short_help="Forecast hours, cost and bytes of a bootstrap.")
@config_argument
@set_option
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Images of each repeat of the rehearsal.",
)
@click.option(
    "--repeats", type=click.IntRange(min=2), default=4, show_default=True, help="Repeats, each on other images."
)
@click.option("--no-timing", is_flag=True, help="Load no model: forecast only shards, samples and bytes.")
@click.option("--rate", type=Finite(0.001, 1e6), help="Images/s of a worker, measured elsewhere.")
@click.option("--price", type=Finite(0, 1e6), help="Price of an hour of a GPU, or of a CPU core without GPUs.")
@click.option("--all", "whole", is_flag=True, help="Look at every shard, however many there are.")
@click.option(
    "--keep",
    help="Keep the rehearsal in this folder: KEEP/run is a run, for inspect, report, calibrate and recut.",
)
@json_option
def plan(
    config: Path,
    overrides: tuple[str, ...],
    images: int,
    repeats: int,
    no_timing: bool,
    rate: float | None,
    price: float | None,
    whole: bool,
    keep: str | None,
    as_json: bool,
) -> None:
    """Forecast what the bootstrap of CONFIG will take: hours, device hours, storage and cost, each with a range.

    Looks at the shards, and captions and scores some of their images on this machine, in a folder that is thrown away
    unless you --keep it. The times are those of this machine's device, and the workers those of CONFIG. For a run that
    was begun, the forecast covers what is left. The run folder is not touched.

    \b
    Example:
      capfilt plan configs/bootstrap.yaml --price 2.50
      capfilt plan configs/bootstrap.yaml --keep rehearsal && capfilt inspect rehearsal/run
      capfilt plan configs/bootstrap.yaml --rate 85 --set cluster.workers=16 --json
    """
    from capfilt.config import BootstrapConfig, load
    from capfilt.storage import local_path

    folder = local_path(keep) if keep else None
    if keep and folder is None:
        raise click.UsageError(f"--keep {keep}: give a folder of this machine")
    if keep and (no_timing or rate is not None):
        raise click.UsageError("--keep needs a rehearsal, which --no-timing and --rate leave out")
    settings = load(BootstrapConfig, config, overrides)
    from capfilt.forecast import render_forecast
    from capfilt.forecast.rehearsal import run_of
    from capfilt.models import build_models, checkpoint_hashes
    from pipelines import plan as job

    options = job.Options(images, repeats, not no_timing, rate, price, whole, folder)
    found = job.run(settings, build_models, checkpoint_hashes, options)
    click.echo(json_text(found.to_json()) if as_json else render_forecast(found))
    if folder and found.rehearsal:
        click.echo(f"the rehearsal is kept: capfilt inspect {shlex.quote(str(run_of(folder)))}", err=True)
    elif folder:
        click.echo("no sample is left to rehearse with, so nothing is kept", err=True)
