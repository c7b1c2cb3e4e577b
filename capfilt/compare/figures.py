"""How two runs over the same images differ, sample by sample and text by text."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from capfilt.compare.matching import match
from capfilt.policy import SOURCES
from capfilt.query import OpenRun
from capfilt.query.engine import connect
from capfilt.stats.scores import QUANTILES, SCORES, quantiles_of
from capfilt.storage.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Shift:
    """The differences of a score, second run minus first, of texts with a score in both."""

    texts: int
    mean: float
    quantiles: dict[str, float]  # {"p5": ...}


@dataclass(frozen=True, slots=True)
class SourceComparison:
    """The texts of one source, matched by image and caption_index."""

    matched: int
    only_first: int  # texts of matched samples that the other run does not have
    only_second: int
    changed: int  # matched texts that differ
    kept_by_both: int
    lost: int  # kept by the first run only
    gained: int  # kept by the second run only
    rejected_by_both: int
    shifts: dict[str, Shift]  # by name of the score

    @property
    def agreement(self) -> float:
        """The share of the matched texts on which both runs decide alike; 1 if there are none."""
        return (self.kept_by_both + self.rejected_by_both) / self.matched if self.matched else 1.0


@dataclass(frozen=True, slots=True)
class Example:
    """A text on which the runs decide differently. A pair holds the first run's value and the second's."""

    source: str
    caption_index: int
    shards: tuple[str, str]
    positions: tuple[int, int]
    keys: tuple[str, str]
    texts: tuple[str, str]
    itm: tuple[float | None, float | None]
    reasons: tuple[str | None, str | None]  # why it is not kept


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same images."""

    runs: tuple[str, str]
    policies: tuple[str, str]
    extents: tuple[str, str]  # which shards were looked at, for people
    samples: tuple[int, int]
    matched: int  # pairs of samples with the same image; copies of an image pair up by shard and position
    only_first: int
    only_second: int
    without_image: tuple[int, int]  # samples that have no image to match by
    statuses: list[tuple[str, str, int]]  # of matched samples whose status differs: first, second, number of samples
    kept_by_both: int  # matched samples with a kept text
    lost: int  # with one in the first run only
    gained: int
    sources: dict[str, SourceComparison]
    lost_examples: list[Example]  # the largest difference of P(match) first
    gained_examples: list[Example]

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        values = asdict(self)
        for name, source in self.sources.items():
            values["sources"][name]["agreement"] = source.agreement
        return values


def compare(first: OpenRun, second: OpenRun, examples: int = 5) -> Comparison:
    """Return how two runs over the same images differ.

    Args:
        first: a run.
        second: another run, or the same one under another policy.
        examples: number of lost texts, and of gained ones.
    """
    files = {
        f"{name}_{side}": paths for side, run in (("a", first), ("b", second)) for name, paths in run.files.items()
    }
    with Scratch() as folder, connect(files, Path(folder)) as connection:
        match(connection)
        return Comparison(
            runs=(first.run.root, second.run.root),
            policies=(first.policy.name, second.policy.name),
            extents=(first.extent, second.extent),
            **_samples(connection),
            statuses=_statuses(connection),
            sources=_sources(connection),
            lost_examples=_examples(connection, "kept_a AND NOT kept_b", examples),
            gained_examples=_examples(connection, "kept_b AND NOT kept_a", examples),
        )


def _samples(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    pairs = connection.table("pairs").aggregate("""
        count(*) FILTER (shard_a IS NOT NULL AND shard_b IS NOT NULL) AS matched,
        count(*) FILTER (shard_b IS NULL) AS only_first, count(*) FILTER (shard_a IS NULL) AS only_second,
        count(*) FILTER (kept_a > 0 AND kept_b > 0) AS kept_by_both,
        count(*) FILTER (kept_a > 0 AND kept_b = 0) AS lost, count(*) FILTER (kept_a = 0 AND kept_b > 0) AS gained""")
    each = "count(*) AS samples, count(*) FILTER (image_sha256 = '') AS without_image"
    counts = [connection.table(f"samples_{side}").aggregate(each).fetchall()[0] for side in "ab"]
    samples, without_image = zip(*counts, strict=True)
    figures = dict(zip(pairs.columns, pairs.fetchall()[0], strict=True))
    return figures | {"samples": samples, "without_image": without_image}


def _statuses(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, int]]:
    differing = connection.table("pairs").filter("status_a <> status_b")
    return differing.aggregate("status_a, status_b, count(*) AS n").order("status_a, status_b").fetchall()


def _sources(connection: duckdb.DuckDBPyConnection) -> dict[str, SourceComparison]:
    texts = connection.table("texts")
    counted = texts.aggregate("""
        source, count(*) FILTER (in_a AND in_b) AS matched, count(*) FILTER (NOT in_b) AS only_first,
        count(*) FILTER (NOT in_a) AS only_second, count(*) FILTER (changed) AS changed,
        count(*) FILTER (kept_a AND kept_b) AS kept_by_both, count(*) FILTER (kept_a AND NOT kept_b) AS lost,
        count(*) FILTER (kept_b AND NOT kept_a) AS gained,
        count(*) FILTER (NOT kept_a AND NOT kept_b) AS rejected_by_both""")
    found = {row[0]: dict(zip(counted.columns[1:], row[1:], strict=True)) for row in counted.fetchall()}
    return {
        source: SourceComparison(**found[source], shifts=_shifts(texts.filter(f"source = '{source}'")))
        for source in SOURCES
        if source in found
    }


def _shifts(texts: duckdb.DuckDBPyRelation) -> dict[str, Shift]:
    shifts = {}
    for score in SCORES:
        differences = texts.project(f"{score}_b::double - {score}_a AS shift").filter("shift IS NOT NULL")
        figures = f"count(*) AS n, avg(shift) AS mean, {quantiles_of('shift')}"
        count, mean, *found = differences.aggregate(figures).fetchall()[0]
        if count:
            quantiles = {name: round(value, 4) for name, value in zip(QUANTILES, found, strict=True)}
            shifts[score] = Shift(count, round(mean, 4), quantiles)
    return shifts


def _examples(connection: duckdb.DuckDBPyConnection, where: str, count: int) -> list[Example]:
    order = "abs(itm_b - itm_a) DESC NULLS LAST, shard_a, position_a, source, caption_index"
    names = ("shard", "position", "key", "text", "itm", "reason")
    pairs = ", ".join(f"{name}_a, {name}_b" for name in names)
    chosen = connection.table("texts").filter(where).order(order).limit(count)
    rows = chosen.project(f"source, caption_index, {pairs}").fetchall()
    return [Example(row[0], row[1], *(row[n : n + 2] for n in range(2, len(row), 2))) for row in rows]
