"""The figures of a run as text for a terminal, and as CSV."""

import csv
import io
from collections.abc import Mapping
from dataclasses import replace

from capfilt.display import counted, one_line, reveal
from capfilt.policy import REASONS
from capfilt.stats.overview import Stats
from capfilt.stats.scores import QUANTILES, band_edges
from capfilt.stats.slices import Slice, Slices
from capfilt.stats.terminal import Row, bar, columns, share
from capfilt.stats.texts import TextStats

PAPER = "for comparison: BLIP's filter rejects 25 % of captions from nucleus sampling, 19 % from beam search (table 2)"


_WIDTH = 18  # of a bar of a histogram, characters


def render_text(stats: Stats, texts: Mapping[str, TextStats] | None = None, plain: bool = True) -> str:
    """Return the figures as tables.

    Args:
        stats: the figures.
        texts: figures of the texts, if they are wanted too.
        plain: use only ASCII, except in texts.
    """
    head = f"{stats.run}: {stats.extent}, policy {stats.policy}"
    sections = [head + (f", where {stats.where}" if stats.where else ""), _samples(stats), _sources(stats)]
    sections += [_histogram(stats, plain)] if stats.sources else []
    sections += [_texts(texts)] if texts else []
    sections += [_stages(stats)] if stats.where is None else []
    return "\n\n".join(sections)


def render_slices(slices: Slices, plain: bool = True) -> str:
    """Return a table with a row for each part, and a bar for the share that is kept."""
    rows: list[Row] = [[*slices.by, "scored", "kept", "noise", "failed", "kept share"]]
    rows += [[*(_name(name) for name in part.names), *_figures(part, plain)] for part in slices.parts]
    blanks = [""] * (len(slices.by) - 1)
    if slices.others:
        rows.append([f"({slices.left_out:,} others)", *blanks, *_figures(slices.others, plain)])
    rows.append(["all", *blanks, *_figures(slices.total, plain)])
    condition = f", where {slices.where}" if slices.where else ""
    head = f"{slices.run}: {slices.extent}, policy {slices.policy}{condition}"
    return f"{head}\n\n{columns([[*row[:-1], ' ' + str(row[-1]).ljust(10)] for row in rows], len(slices.by))}"


def csv_slices(slices: Slices) -> str:
    """Return the parts as CSV, with a column for each reason and each status that occurs.

    The last line sums up the parts that are left out, so that the lines add up to the whole.
    """
    statuses = sorted(slices.total.failed)
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow([*slices.by, "scored", "kept", "noise", *REASONS, *(f"failed_{status}" for status in statuses)])
    others = [replace(slices.others, names=(f"({slices.left_out} others)",))] if slices.others else []
    for part in [*slices.parts, *others]:
        counts = [*(part.rejected.get(r, 0) for r in REASONS), *(part.failed.get(status, 0) for status in statuses)]
        names = ["" if name is None else reveal(name) for name in part.names]  # it goes to terminals, too
        names += [""] * (len(slices.by) - len(names))
        writer.writerow([*names, part.scored, part.kept, round(part.noise, 6), *counts])
    return sheet.getvalue()


def _name(name: str | None) -> str:
    return "(none)" if name is None else one_line(name, 40)


def _figures(part: Slice, plain: bool) -> list[object]:
    noise = share(part.scored - part.kept, part.scored)
    return [part.scored, part.kept, noise, sum(part.failed.values()), bar(part.kept, part.scored, 10, plain)]


def _samples(stats: Stats) -> str:
    rows: list[Row] = [["samples", "count", "share"], ["attempted", stats.samples, ""]]
    rows += [[f"  {status}", count, share(count, stats.samples)] for status, count in stats.statuses.items()]
    rows += [["with a kept text", stats.samples_kept, share(stats.samples_kept, stats.samples)]]
    own = stats.text_statuses.items()
    rows += [[f"own text {status}", count, share(count, stats.samples)] for status, count in own]
    failed = any(status != "ok" for status in stats.statuses)
    return columns(rows) + ("\nwhy samples failed: capfilt inspect RUN --failed" if failed else "")


def _sources(stats: Stats) -> str:
    rows: list[Row] = [["source", "scored", "kept", "noise", "rejected"]]
    scores: list[Row] = [["score", *QUANTILES]]
    for name, source in stats.sources.items():
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in source.rejected.items())
        rows.append([name, source.scored, source.kept, share(source.scored - source.kept, source.scored), reasons])
        scores += [[f"{name} {score}", *quantiles.values()] for score, quantiles in source.scores.items()]
    paper = [PAPER] if "synthetic" in stats.sources else []
    return "\n\n".join(["\n".join([columns(rows), *paper]), columns(scores)])


def _histogram(stats: Stats, plain: bool) -> str:
    """Return the histogram of P(match) of each source; its bars are in proportion to the longest."""
    edges = band_edges("itm")
    bands = {name: source.bands["itm"] for name, source in stats.sources.items() if "itm" in source.bands}
    rows: list[Row] = [["itm", *(cell for name in bands for cell in (name, " " * _WIDTH))]]
    for n, low in enumerate(edges[:-1]):
        bars = (
            cell
            for counts in bands.values()
            for cell in (counts[n], bar(counts[n], max(counts), _WIDTH, plain).ljust(_WIDTH))
        )
        rows.append([f"{low:.2f} to {edges[n + 1]:.2f}", *bars])
    return columns(rows)


def _texts(texts: Mapping[str, TextStats]) -> str:
    """Return the figures of the texts, a column for each source, and the most repeated texts."""
    rows: list[Row] = [["texts", *texts]]
    rows += [["repeat another", *(f"{text.duplicates:.1%}".replace("%", " %") for text in texts.values())]]
    figures = next(iter(texts.values())).words  # the same for all sources
    rows += [[f"words, {name}", *(f"{text.words[name]:.4g}" for text in texts.values())] for name in figures]
    rows += [["of so many words", *(text.sampled_words for text in texts.values())]]
    rows += [["  vocabulary", *(text.vocabulary for text in texts.values())]]
    rows += [["  distinct-1", *(f"{text.distinct_1:.4f}" for text in texts.values())]]
    rows += [["  distinct-2", *(f"{text.distinct_2:.4f}" for text in texts.values())]]
    most: list[Row] = [["most repeated", "times", " " * 51]]
    most += [
        [name, count, f" {one_line(text, 50)}".ljust(51)]
        for name, stats in texts.items()
        for text, count in stats.repeated
    ]
    return "\n\n".join([columns(rows), *([columns(most)] if len(most) > 1 else [])])


def _stages(stats: Stats) -> str:
    rows: list[Row] = [["stage", "seconds", "samples/s of a worker"]]
    rows += [[stage, f"{seconds:.1f}", f"{stats.rates.get(stage, 0):.1f}"] for stage, seconds in stats.seconds.items()]
    tokens = f"{counted(stats.tokens, 'token')} generated, {stats.tokens_per_second:,.1f} for each second of captioning"
    return f"{columns(rows)}\n\n{tokens}"
