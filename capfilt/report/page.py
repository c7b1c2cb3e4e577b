"""Draw a report as one HTML file.

Nothing from the web reaches the page unescaped: the template escapes all values, and texts go through reveal first.
The content-security policy of the file allows only its own script, style and images.
"""

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources

import jinja2
import numpy as np
import pyarrow as pa
from markupsafe import Markup

from capfilt.config import Policy, dump
from capfilt.display import counted, four_places, reveal, shorten
from capfilt.policy import draws_own
from capfilt.query.cards import Card
from capfilt.query.images import NOT_SHOWN
from capfilt.report.content import Report
from capfilt.report.thumbnails import Picture

SHOWN_CHARACTERS = 160  # characters of a text before it is folded
EMBEDDED = 2000  # characters of a text in the file
PAPER = "the paper's: 25\N{NO-BREAK SPACE}% nucleus, 19\N{NO-BREAK SPACE}% beam"  # BLIP, arXiv 2201.12086, table 2

_BARS = 100

Row = dict[str, object]


def render(report: Report, pictures: Mapping[tuple[str, int], Picture]) -> str:
    """Return a report as HTML.

    Args:
        report: what it shows.
        pictures: the image of each card, by shard and position.
    """
    return _template().render(
        report=report,
        pictures=pictures,
        name=report.run.rstrip("/").rpartition("/")[2],
        figures=_figures(report),
        histograms=_histograms(report),
        data=_data(report),
        model=_model(report.policy),
        settings=dump(report.policy),
        style=_asset("page.css"),
        script=_asset("page.js"),
        not_shown=NOT_SHOWN,
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "reveal": reveal,
        "draws_own": _draws_own,
        "parts": _parts,
        "reason": lambda reason: "" if reason == "low_itm" else reason.replace("_", " "),
        "score": lambda score: "no score" if score is None else four_places(score),
        "share": _share,
        "digest": _digest,
        "trusted": Markup,  # for our own style and script: the content-security policy has hashes of their raw bytes
    }
    return environment.get_template("page.html")


@cache
def _asset(name: str) -> str:
    return resources.files("capfilt.report").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    """Return the hash of an inline script or style as a content-security policy states it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _parts(text: str) -> tuple[str, str, int, int]:
    """Return the shown part of a text, the folded part, and how many characters are not shown, and left out.

    The counts are of the text itself: reveal writes an invisible character as several.
    """
    embedded, left_out = text[:EMBEDDED], max(0, len(text) - EMBEDDED)
    head, rest = shorten(embedded, SHOWN_CHARACTERS)
    return reveal(head), reveal(rest), len(text) - len(head), left_out


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%" if whole else "0\N{NO-BREAK SPACE}%"


def _figures(report: Report) -> list[Row]:
    """Return the headline figures: label, value and context of each."""
    figures = report.figures
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in list(report.failed.items())[:3])
    more = f" and {counted(len(report.failed) - 3, 'more reason')}" if len(report.failed) > 3 else ""
    rows: list[Row] = [
        {
            "label": "Samples attempted",
            "value": f"{figures.samples:,}",
            "context": f"in {counted(figures.shards, 'shard')}",
        },
        {"label": "Scored", "value": f"{report.scored:,}", "context": _share(report.scored, figures.samples)},
        {"label": "Failed", "value": f"{sum(report.failed.values()):,}", "context": (reasons + more) or "none"},
        {
            "label": "Images with a kept text",
            "value": f"{figures.samples_kept:,}",
            "context": f"{_share(figures.samples_kept, report.scored)} of those scored",
        },
    ]
    for name, source in figures.sources.items():
        context = f"{source.scored - source.kept:,} of {source.scored:,} rejected"
        if name == "synthetic":
            context += f"; {PAPER}"
        rows.append(
            {
                "label": f"Noise of {name} texts",
                "value": _share(source.scored - source.kept, source.scored),
                "context": context,
            }
        )
    return rows


def _roles(report: Report) -> dict[str, str]:
    """Return the sources that have texts, by their role on the page."""
    roles = {"own": report.whatif.own, "synthetic": "synthetic"}
    return {role: source for role, source in roles.items() if source in report.figures.sources}


def _histograms(report: Report) -> list[Row]:
    whatif = report.whatif
    return [_histogram(report, role, source, whatif.thresholds[source]) for role, source in _roles(report).items()]


def _histogram(report: Report, role: str, source: str, threshold: float) -> Row:
    whatif = report.whatif
    totals = [0] * _BARS
    for edge, count in zip(whatif.edges, whatif.counts[source], strict=True):
        totals[min(int(edge * _BARS + 1e-9), _BARS - 1)] += count
    highest = max(totals) or 1
    bars = [
        {"x": bar + 0.1, "start": bar / _BARS, "height": round(100 * math.sqrt(total / highest), 2)}
        for bar, total in enumerate(totals)
    ]
    kept = whatif.kept(source)
    share = _share(kept, report.figures.sources[source].scored)
    label = (
        f"Histogram of P(match) of {sum(totals):,} {source} texts; with the threshold at {threshold}, {share} are kept"
    )
    row = {"role": role, "source": source, "threshold": threshold, "kept": kept, "share": share}
    return row | {"bars": bars, "width": _BARS, "label": label}


def _data(report: Report) -> Row:
    """Return the data of the script: only numbers and our own names. The template encodes it for a script."""
    whatif, roles, policy = report.whatif, _roles(report), report.policy
    return {
        "edges": whatif.edges,
        "thresholds": {role: whatif.thresholds[source] for role, source in roles.items()},
        "candidates": {role: report.figures.sources[source].scored for role, source in roles.items()},
        "keys": {role: f"{source}_itm" for role, source in roles.items()},
        "corners": {role: whatif.corners[source] for role, source in roles.items()}
        | {"images": whatif.corners["images"]},
        "scored": report.scored,
        "dropDuplicates": policy.drop_duplicates,
        "mix": policy.mix,
        "most": policy.top_k if policy.mix == "top_k" else 1,
    }


def _draws_own(card: Card, policy: Policy) -> bool:
    """Return whether mix: weighted draws the own text of a card."""
    if policy.mix != "weighted":
        return False
    shard, position = card.place
    return bool(draws_own(pa.array([shard]).dictionary_encode(), np.array([position]), policy)[0])


_MIXES = {
    "both": "An image keeps all texts that reach their thresholds.",
    "web_else_synthetic": "Captions are kept if the image's own text is not.",
    "best": "An image keeps the one text with the highest P(match).",
    "top_k": "An image keeps at most as many texts as top_k says, those with the highest P(match).",
    "web_only": "Captions are not kept, at any threshold.",
    "synthetic_only": "Own texts are not kept, at any threshold.",
    "weighted": "If own text and captions reach their thresholds, an image keeps the side that the seed draws.",
}


def _model(policy: Policy) -> str:
    """Return a description of what the sliders count."""
    parts = [
        "A slider moves the threshold of one source in steps of 0.005. All texts of the run are counted, not only the "
        "samples that are shown. The counts are those of capfilt recut for the policy with these thresholds, exact at "
        "every step and at the policy's own; its other rules (words, cosine) stay as they are.",
        f"The policy's mix is {policy.mix}. {_MIXES[policy.mix]}",
    ]
    if policy.drop_duplicates:
        first = "the first caption" if policy.mix == "synthetic_only" else "the own text first"
        parts.append(f"Of equal texts of an image only one counts: {first}, as in the policy.")
    return " ".join(parts)
