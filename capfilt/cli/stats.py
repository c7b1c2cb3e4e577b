"""The commands that count: capfilt stats and compare."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capfilt.cli.options import (
    existing_file,
    json_option,
    json_text,
    plain_output,
    policy_option,
    say_nothing,
    say_share,
    share_option,
)

if TYPE_CHECKING:
    from capfilt.query import OpenRun

_where = click.option(
    "--where", metavar="SQL", help="Only what meets a condition, such as \"source = 'web' AND itm > 0.9\"."
)


@click.command(short_help="Count what was scored, kept, rejected and failed.")
@click.argument("run")
@policy_option
@click.option(
    "--by", multiple=True, metavar="NAME", help="Split by source, words, domain, ...; several split by all together."
)
@_where
@click.option("--top", type=click.IntRange(min=1), help="Parts shown one by one. [default: 25; all for JSON and CSV]")
@share_option
@click.option("--unfinished", is_flag=True, help="Also count the committed units of unfinished shards.")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line for each part; by source without --by.")
def stats(
    run: str,
    policy: Path | None,
    by: tuple[str, ...],
    where: str | None,
    top: int | None,
    share: float | None,
    unfinished: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show what was scored, kept, rejected and failed in RUN.

    --by takes source, captioner, round, shard, words, script, language, domain, format, size (shorter side), itm, itc,
    reason and status. --where takes SQL over the columns that docs/query.md lists; a wrong name lists them too.

    \b
    Example:
      capfilt stats runs/cc12m
      capfilt stats runs/cc12m --by domain --where "source = 'web'"
      capfilt stats runs/cc12m --json | jq .sources.web.noise
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other")
    from capfilt.query import open_run

    languages = any(re.search(r"(?i)\blanguage\b", text) for text in (*by, where or ""))
    with open_run(run, policy, unfinished=unfinished, share=share, languages=languages) as opened:
        say_share(opened)
        say_nothing(opened)
        if by or as_csv:
            shown = top or (None if as_json or as_csv else 25)
            _print_parts(opened, by or ("source",), where, shown, as_json, as_csv)
        else:
            _print_whole(opened, where, as_json)


def _print_parts(
    opened: "OpenRun", by: Sequence[str], where: str | None, top: int | None, as_json: bool, as_csv: bool
) -> None:
    """Print a run cut by some of its columns."""
    from capfilt.stats import csv_slices, cut, render_slices

    slices = cut(opened, by, where, top)
    if as_csv:
        click.echo(csv_slices(slices), nl=False)
    else:
        click.echo(json_text(slices.to_json()) if as_json else render_slices(slices, plain_output()))


def _print_whole(opened: "OpenRun", where: str | None, as_json: bool) -> None:
    """Print what a run as a whole came to."""
    from capfilt.stats import describe_texts, render_text, summarise

    overview, texts = summarise(opened, where), describe_texts(opened, where)
    if as_json:
        values = {name: text.to_json() for name, text in texts.items()}
        click.echo(json_text(overview.to_json() | {"texts": values}))
    else:
        click.echo(render_text(overview, texts, plain_output()))


@click.command(short_help="Show how two runs on the same images differ.")
@click.argument("first")
@click.argument("second")
@click.option("--policy", type=existing_file, help="YAML of a policy for both, instead of each run's own.")
@click.option("--policy-first", type=existing_file, help="YAML of a policy for the first run alone.")
@click.option("--policy-second", type=existing_file, help="YAML of a policy for the second run alone.")
@click.option(
    "--examples", type=click.IntRange(min=0), default=5, show_default=True, help="Texts gained and lost that are shown."
)
@json_option
def compare(
    first: str,
    second: str,
    policy: Path | None,
    policy_first: Path | None,
    policy_second: Path | None,
    examples: int,
    as_json: bool,
) -> None:
    """Show how two runs over the same images differ: decisions, scores and captions.

    FIRST and SECOND are two rounds, captioners or settings, or one run under two policies. Samples are matched by the
    hash of their image; those without a partner are counted.

    \b
    Example:
      capfilt compare runs/round0 runs/round1
      capfilt compare runs/cc12m runs/cc12m --policy-second strict.yaml
    """
    from capfilt import compare as comparing
    from capfilt.query import open_run

    with open_run(first, policy_first or policy) as a, open_run(second, policy_second or policy) as b:
        for opened in (a, b):
            say_nothing(opened)
        found = comparing.compare(a, b, examples)
    click.echo(json_text(found.to_json()) if as_json else comparing.render_comparison(found))
