"""The command that looks at inputs before a model does: capfilt scan."""

import os
from pathlib import Path

import click

from capfilt.cli.options import Finite, existing_file, json_option, json_text, set_option


@click.command(short_help="Find what is wrong with input shards.")
@click.argument("inputs", nargs=-1)
@click.option(
    "--config",
    type=existing_file,
    help="YAML of a bootstrap, for its input, limits on images, damage and max_failed_share.",
)
@set_option
@click.option("--sample", type=Finite(0, 1, min_open=True), default=1.0, help="Look at this share of the samples.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes; as many as there are CPUs by default.")
@click.option(
    "--languages", is_flag=True, help="Also guess the language of each text; slower, and needs the extra languages."
)
@json_option
def scan(
    inputs: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    sample: float,
    workers: int | None,
    languages: bool,
    as_json: bool,
) -> None:
    """Report what is wrong with INPUTS, and what a bootstrap would meet, before a GPU is paid for.

    INPUTS are what a bootstrap takes: tars, Parquet files, lists, folders, globs, ranges, URLs. It finds damaged and
    unfinished shards, images that do not decode, placeholders, copies, texts and URLs that repeat, scripts and sizes.

    \b
    Example:
      capfilt scan "/data/cc12m/{00000..01242}.tar" --sample 0.01
      capfilt scan --config my.yaml --json
    """
    from capfilt import scan as scanning
    from capfilt.config import BootstrapConfig, load, loads

    if config is None and not inputs:
        raise click.UsageError("give INPUTS, or --config FILE for those of a bootstrap")
    needed = "{input: [here], run: none, captioner: none, filter: none}"
    job = load(BootstrapConfig, config, overrides) if config else loads(BootstrapConfig, needed, "--set", overrides)
    if inputs:
        job = job.model_copy(update={"input": list(inputs)})
    found = scanning.scan(job, share=sample, workers=workers or os.cpu_count() or 1, languages=languages)
    click.echo(json_text(found.to_json()) if as_json else scanning.render_scan(found))
