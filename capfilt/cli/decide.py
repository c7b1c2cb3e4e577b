"""The commands that help to decide what is kept: capfilt recut and calibrate."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capfilt.cli.options import Finite, existing_file, json_option, json_text, plain_output, set_option

if TYPE_CHECKING:
    from capfilt.config import Policy
    from capfilt.runs import Run


@click.command(short_help="Show what another policy changes; write its shards.")
@click.argument("run")
@click.option("--policy", type=existing_file, help="YAML of the new policy; without it, --set changes the run's own.")
@set_option
@click.option("--against", type=existing_file, help="YAML of the policy to compare with; the run's own by default.")
@click.option(
    "--examples", type=click.IntRange(min=0), default=5, show_default=True, help="Texts gained and lost that are shown."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw of examples.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes that write.")
@click.option("--dry-run", is_flag=True, help="Show what would change and check that it can be written; write nothing.")
@json_option
def recut(
    run: str,
    policy: Path | None,
    overrides: tuple[str, ...],
    against: Path | None,
    examples: int,
    seed: int,
    workers: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Apply another policy to the ledger of RUN, and write its clean shards. No model is loaded.

    First shows which texts are gained and lost against the policy before. Clean shards of other policies stay.

    \b
    Example:
      capfilt recut runs/cc12m --set web_itm=0.8 --dry-run
      capfilt recut runs/cc12m --policy strict.yaml --workers 8
    """
    if policy is None and not overrides:
        raise click.UsageError("give a policy: --policy FILE, or --set KEY=VALUE to change the run's own")
    from capfilt.recut import difference, render_difference
    from capfilt.runs import load_policy, load_run

    opened = load_run(run)
    before = load_policy(against) if against else opened.config().policy
    after = _policy(opened, policy, overrides)
    found = difference(opened, before, after, examples, seed)
    if not as_json:
        click.echo(render_difference(found))
    written = ""
    problems: list[str] = []
    try:
        written, problems = _export(run, after, workers, dry_run)
    finally:  # the difference is found even if not all of it can be written
        if as_json:
            done = None if dry_run else written or None
            click.echo(json_text(found.to_json() | {"written": done, "problems": problems}))
    if not as_json:
        click.echo(f"\n{written}")
    sys.exit(1 if problems else 0)


@click.command(short_help="Propose thresholds for a target false-accept rate.")
@click.argument("run")
@click.option(
    "--error",
    type=Finite(1e-9, 1, max_open=True),
    default=0.05,
    show_default=True,
    help="Target false-accept rate: the share of known mismatches that pass.",
)
@click.option("--labels", type=existing_file, help="CSV of key, text and label (1 or 0), for precision and recall.")
@click.option("--policy", type=existing_file, help="YAML of the policy to calibrate; the run's own by default.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="YAML to write the new policy to.")
@json_option
def calibrate(
    run: str, error: float, labels: Path | None, policy: Path | None, output: Path | None, as_json: bool
) -> None:
    """Propose thresholds for a target false-accept rate, measured on known mismatches: the control pairs of RUN.

    A bootstrap scores a share of its images with other images' texts (controls.share). The share of these pairs that
    pass a threshold is its false-accept rate on this data.

    \b
    Example:
      capfilt calibrate runs/cc12m --error 0.05
      capfilt calibrate runs/cc12m --error 0.02 --output strict.yaml
      capfilt recut runs/cc12m --policy strict.yaml --dry-run
    """
    from capfilt import calibrate as calibrating
    from capfilt.config import dump
    from capfilt.query import open_run
    from capfilt.storage import publish

    with open_run(run, policy) as opened:
        found = calibrating.calibrate(opened, error, calibrating.read_labels(labels) if labels else ())
    if output is not None:
        head = f"# by capfilt calibrate {run} --error {error:g}, from known mismatches\n"
        publish(str(output), (head + dump(found.policy)).encode())
    if as_json:
        click.echo(json_text(found.to_json()))
    else:
        click.echo(calibrating.render_calibration(found, plain=plain_output()))
        changes = [f"--set {key}={value:.4g}" for key, value in calibrating.thresholds(found.sources).items()]
        file = output or policy
        options = [f"--policy {shlex.quote(str(file))}"] if file else []
        options += [] if output else changes
        if changes:
            click.echo(f"\nsee what it changes: capfilt recut {shlex.quote(run)} {' '.join(options)} --dry-run")


def _policy(run: "Run", path: Path | None, overrides: tuple[str, ...]) -> "Policy":
    """Return the policy of a file, or the run's own, with some keys changed."""
    from capfilt.config import Policy, dump, loads
    from capfilt.runs import load_policy

    if path is not None:
        return load_policy(path, overrides)
    return loads(Policy, dump(run.config().policy), f"policy of {run.root}", overrides)


def _export(run: str, policy: "Policy", workers: int, dry_run: bool) -> tuple[str, list[str]]:
    """Write the clean shards, or only check that they can be written; return what was done, and what is in the way."""
    from capfilt.config import ExportConfig
    from pipelines import export

    settings = ExportConfig(run=run, policy=policy, workers=workers)
    if not dry_run:
        return export.run(settings), []
    dry = export.dry_run(settings)
    return str(dry), dry.problems
