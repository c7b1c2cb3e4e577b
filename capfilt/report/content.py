"""The content of a report, as plain values: gathered from the ledger, and drawn by page.py."""

from dataclasses import dataclass, field

from capfilt.config import Policy
from capfilt.query.cards import Card
from capfilt.stats.overview import Stats


@dataclass(frozen=True, slots=True)
class Section:
    """One gallery: its cards, and how they were chosen."""

    id: str
    title: str
    how: str  # in words for the reader
    cards: list[Card]


@dataclass(frozen=True, slots=True)
class SliceRow:
    """The candidates of one part of a run."""

    value: str
    scored: dict[str, int]  # by source
    kept: dict[str, int]  # by source

    def share(self, source: str) -> float:
        """Return the share of a source's texts that is kept; 0 if there are none."""
        return self.kept.get(source, 0) / self.scored[source] if self.scored.get(source) else 0.0


@dataclass(frozen=True, slots=True)
class Slices:
    """A run cut by one property of its texts or samples."""

    by: str
    title: str
    how: str
    rows: list[SliceRow]


Corner = tuple[int, int, int]
"""(i, j, n): n more are kept (fewer if n < 0) if the cut of the own texts is at most edges[i] and that of the synthetic
texts at most edges[j]. An index after the last edge stands for any cut."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """All that is needed to count what other thresholds would keep under the policy's mix; exact at the edges.

    Bin i holds the scores from edges[i] up to, but not including, edges[i + 1]; the last one holds 1.0.
    """

    edges: list[float]  # ascending; 0 and the policy's own thresholds are among them
    own: str  # "web" or "human": the source of the texts that came with the images
    thresholds: dict[str, float]  # the policy's, by source
    counts: dict[str, list[int]]  # by source: distinct texts that pass all rules but threshold and mix, by bin
    corners: dict[str, list[Corner]]  # by source: kept texts; "images": images with a kept text

    def kept(self, what: str) -> int:
        """Return how many texts of a source, or images, the policy's own thresholds keep."""
        own, synthetic = (self.edges.index(self.thresholds[source]) for source in (self.own, "synthetic"))
        return sum(n for i, j, n in self.corners[what] if i >= own and j >= synthetic)


@dataclass(frozen=True, slots=True)
class Report:
    """One report."""

    run: str
    policy: Policy
    figures: Stats
    whatif: WhatIf
    sections: list[Section]
    failures: Section
    slices: list[Slices]
    notes: list[str] = field(default_factory=list)  # for the reader: how samples were drawn, what is missing

    @property
    def scored(self) -> int:
        """Samples that were scored."""
        return self.figures.statuses.get("ok", 0)

    @property
    def failed(self) -> dict[str, int]:
        """Samples that were not scored, by reason, the most frequent first."""
        failed = {status: count for status, count in self.figures.statuses.items() if status != "ok"}
        return dict(sorted(failed.items(), key=lambda item: (-item[1], item[0])))
