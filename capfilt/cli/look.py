"""`capfilt inspect` and `capfilt report`: look at the samples of a run, in the terminal and on a page."""

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from capfilt.cli.options import Finite, policy_option, say_share, share_option
from capfilt.errors import RunError

if TYPE_CHECKING:
    from capfilt.query.cards import Card
    from capfilt.query.opened import OpenRun
    from capfilt.query.picks import Order, Pick

_seed = click.option("--seed", default=0, show_default=True, help="Seed of the draw; the same seed shows the same.")


@click.command(short_help="Page through samples: worst kept, failed, by key ...")
@click.argument("run")
@click.option("--kept", is_flag=True, help="Samples with a text that the policy keeps.")
@click.option("--rejected", is_flag=True, help="Samples with a text that the policy rejects.")
@click.option(
    "--near-cut", "near", is_flag=True, help="Samples with a text whose P(match) is within 0.05 of its threshold."
)
@click.option(
    "--disagree", is_flag=True, help="Samples of whose own text and best caption only one reaches its threshold."
)
@click.option("--failed", is_flag=True, help="Samples that were not scored, with the reason.")
@click.option(
    "--reason",
    "reasons",
    multiple=True,
    help="Samples that failed, or with a text that is rejected, for this reason; stats names all that occur.",
)
@click.option("--source", type=click.Choice(["web", "human", "synthetic"]), help="Apply all filters to these texts.")
@click.option("--key", help="The sample with this key.")
@click.option("--where", help="Samples that meet an SQL condition, such as \"domain = 'example.org'\".")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["random", "position", "best", "worst", "near", "disagreement"]),
    help="By P(match): best or worst first, near the threshold, most different; else as drawn. [default: random]",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Most samples to show.")
@_seed
@policy_option
@share_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON for each sample, texts exactly as they came."
)
def inspect(
    run: str, limit: int, seed: int, policy: Path | None, share: float | None, as_json: bool, **filters: Any
) -> None:
    """Page through samples of RUN: image, texts, scores, what is kept and what is not, and why.

    On a terminal, your pager (PAGER) shows them, with images in half blocks; elsewhere, they are plain text. A sample
    begins with its key, its shard and position, and its URL; a text with its source and P(match). A sample is shown if
    one of its texts meets all filters.

    \b
    Example:
      capfilt inspect runs/cc12m --kept --sort worst --limit 10    the worst kept texts
      capfilt inspect runs/cc12m --failed                          why samples failed
      capfilt inspect runs/cc12m --key 000420017                   what became of one sample
    """
    from capfilt.query import open_run
    from capfilt.query.cards import load_cards
    from capfilt.query.picks import pick

    asked = _asked(**filters)
    with open_run(run, policy, share=1.0 if asked.key and not share else share) as opened:
        say_share(opened)
        cards = load_cards(opened, pick(opened, asked, limit, seed))
        if not cards:
            answer = f"no sample meets this ({opened.extent}){_occurring(opened) if asked.reasons else ''}"
            click.echo(f"{run}: {answer if opened.commits else opened.nothing}", err=True)
        _show(opened, cards, as_json)


@click.command(short_help="Draw a run as an HTML page with threshold sliders.")
@click.argument("run")
@click.option("--output", help="File or URL of the page. [default: RUN/report.html]")
@policy_option
@share_option
@click.option("--samples", default=24, show_default=True, type=click.IntRange(1), help="Most samples of a gallery.")
@_seed
@click.option(
    "--megabytes",
    type=Finite(0, 1e9),
    default=8.0,
    show_default=True,
    help="Most megabytes of images; those that do not fit are left out.",
)
@click.option(
    "--languages", is_flag=True, help='Slice by language; slower, and needs pip install "capfilt[languages]".'
)
def report(
    run: str,
    output: str | None,
    policy: Path | None,
    share: float | None,
    samples: int,
    seed: int,
    megabytes: float,
    languages: bool,
) -> None:
    """Draw RUN as one HTML file: figures, histograms, galleries, failures, slices, and threshold sliders.

    The file needs no server and asks for nothing outside of itself.

    \b
    Example:
      capfilt report runs/cc12m --output cc12m.html
    """
    from capfilt import storage
    from capfilt.query import open_run
    from capfilt.report.make import make_report

    if output and (local := storage.local_path(output)) and local.is_dir():
        raise click.UsageError(f"--output {output} is a folder; give a file, such as {local / 'report.html'}")
    with open_run(run, policy, share=share, languages=languages) as opened:
        say_share(opened)
        path = output or storage.join(opened.run.root, "report.html")
        try:
            click.echo(make_report(opened, path, samples, seed, megabytes))
        except OSError as error:
            if output or error.errno not in (errno.EROFS, errno.EACCES):
                raise
            raise RunError(f"{error}; give --output FILE to write the report elsewhere") from None


def _occurring(opened: "OpenRun") -> str:
    """Return the reasons that a reader can ask for, as the end of a sentence."""
    found = opened.sql(
        "SELECT DISTINCT coalesce(reason, status) AS why FROM outcomes WHERE kept IS NOT TRUE ORDER BY 1"
    )
    return f"; reasons in this run: {', '.join(why for (why,) in found.fetchall()) or 'none'}"


def _asked(kept: bool, rejected: bool, disagree: bool, order: "Order | None", **filters: Any) -> "Pick":
    """Return what the options ask for; the other filters are called as in Pick."""
    from capfilt.query.picks import Pick

    if kept and rejected:
        raise click.UsageError("--kept and --rejected exclude each other; leave both out to see all")
    about_texts = {"--kept": kept, "--rejected": rejected, "--near-cut": filters["near"], "--disagree": disagree}
    about_texts["--source"] = filters["source"]
    given = [name for name, value in about_texts.items() if value]
    if filters["failed"] and given:
        raise click.UsageError(f"--failed and {given[0]} exclude each other: a sample that was not scored has no texts")
    words = "".join([filters["key"] or "", *filters["reasons"]])
    if words.encode(errors="ignore").decode() != words:  # bytes of the shell's that are no text
        raise click.UsageError("--key and --reason take UTF-8, as all keys and reasons are")
    chosen = kept if kept or rejected else None
    return Pick(chosen, disagree=disagree, order=order or ("disagreement" if disagree else "random"), **filters)


def _show(opened: "OpenRun", cards: "list[Card]", as_json: bool) -> None:
    from rich.console import Console

    from capfilt import inspect as views
    from capfilt.query.images import read_images

    console = Console()
    if as_json or not console.is_terminal:
        _echo(views.as_json(cards) if as_json else views.as_plain(cards))
        return
    if console.no_color:
        click.echo_via_pager(views.as_plain(cards), color=False)
        return
    images = read_images(opened.run, {card.place: card.image_sha256 for card in cards})
    click.echo_via_pager(views.as_colours(console, cards, images, opened.run.config().images), color=True)


def _echo(parts: Iterable[str]) -> None:
    for part in parts:
        click.echo(part, nl=False)
