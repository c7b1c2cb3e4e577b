"""A run cut by its columns: the texts scored, kept and rejected, and the samples failed, in each part."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import duckdb

from capfilt.errors import QueryError
from capfilt.ledger.commits import add_up
from capfilt.query import OpenRun, filtered
from capfilt.query.where import query_errors

_WORDS = (0, 1, 3, 6, 11, 21, 51)
_SIDES = (0, 64, 128, 256, 384, 512, 1024)


def _ranges(column: str, edges: Sequence[int]) -> str:
    """Return SQL that names the range of a whole number; the last range has no end."""
    cases = [f"WHEN {column} >= {edges[-1]} THEN '{edges[-1]}+'"]
    for low, high in reversed(list(pairwise(edges))):
        cases.append(f"WHEN {column} >= {low} THEN '{low}{f'-{high - 1}' if high > low + 1 else ''}'")
    return f"CASE {' '.join(cases)} END"


def _tenths(column: str, least: int) -> str:
    """Return SQL that names the tenth in which a score lies, from `least` to 1.

    Each tenth holds its lower edge, and the last one also 1. Edges are float32, like scores and thresholds.
    """
    cases = [
        f"WHEN {column} >= {tenth / 10}::FLOAT THEN '{tenth / 10} to {(tenth + 1) / 10}'"
        for tenth in range(9, 10 * least, -1)
    ]
    lowest = f"WHEN {column} IS NOT NULL THEN '{float(least)} to {(10 * least + 1) / 10}'"
    return f"CASE {' '.join([*cases, lowest])} END"


Place = tuple[tuple[bool, float], ...]


@dataclass(frozen=True, slots=True)
class Dimension:
    """Something that a run can be cut by, as SQL expressions on the columns of its outcomes."""

    name: str  # gives the name of the part that a row belongs to
    along: str = "0"  # sorts the parts; of equal ones the largest comes first


_SIDE = "least(width, height)"
_FIGURES = """
    count(source) AS scored, count(*) FILTER (kept) AS kept,
    histogram(reason) AS rejected, histogram(status) FILTER (status <> 'ok') AS failed
"""

DIMENSIONS = {
    "source": Dimension("source"),
    "captioner": Dimension("captioner"),
    "round": Dimension("round", "round"),
    "shard": Dimension("shard"),
    "words": Dimension(_ranges("words", _WORDS), "words"),
    "script": Dimension("script"),
    "language": Dimension("language"),
    "domain": Dimension("domain"),
    "format": Dimension("format"),
    "size": Dimension(_ranges(_SIDE, _SIDES), _SIDE),
    "itm": Dimension(_tenths("itm", 0), "itm"),
    "itc": Dimension(_tenths("itc", -1), "itc"),
    "reason": Dimension("reason"),
    "status": Dimension("status"),
}
"""What a run can be cut by: size is the shorter side of the image, in pixels; words is the length of the text."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of a run."""

    names: tuple[str | None, ...]  # by dimension; None if the rows have no value
    scored: int  # texts
    kept: int
    rejected: dict[str, int]  # texts by reason
    failed: dict[str, int]  # samples by status

    @property
    def noise(self) -> float:
        """The share of the texts that is rejected; 0 if there are no texts."""
        return 1 - self.kept / self.scored if self.scored else 0.0

    def figures(self) -> dict[str, object]:
        """Return all fields but names, and the noise, as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "names"} | {"noise": self.noise}


@dataclass(frozen=True, slots=True)
class Slices:
    """A run in parts."""

    run: str
    policy: str
    where: str | None
    by: tuple[str, ...]
    parts: list[Slice]
    others: Slice | None  # the sum of all parts that are left out
    left_out: int  # how many they are
    total: Slice
    share: float  # of the complete shards that was looked at
    extent: str  # which shards were looked at, for people

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        values = {name: getattr(self, name) for name in ("run", "policy", "where", "by", "left_out", "share", "extent")}
        values["parts"] = [dict(zip(self.by, part.names, strict=True)) | part.figures() for part in self.parts]
        return values | {"others": self.others and self.others.figures(), "total": self.total.figures()}


def cut(opened: OpenRun, by: Sequence[str], where: str | None = None, top: int | None = None) -> Slices:
    """Return the decisions on the texts and samples of a run, in parts.

    Args:
        opened: the run; opened with languages, if it is cut by language.
        by: one or several names of DIMENSIONS.
        where: a condition on the columns of opened.outcomes.
        top: list this many parts, those with the most texts, and sum up all others; None lists all.

    Raises:
        QueryError: there is no such dimension, or where is no condition.
    """
    _check(by, opened.outcomes.columns)
    rows = filtered(opened.outcomes, where)
    with query_errors(where, rows.columns):
        parts = _parts(rows, by)
        total = next((part for part, _ in _parts(rows, ())), Slice((), 0, 0, {}, {}))
    rest = [] if top is None else [part for part, _ in parts[top:]]
    return Slices(
        run=opened.run.root,
        policy=opened.policy.name,
        where=where,
        by=tuple(by),
        parts=[part for part, _ in sorted(parts[:top], key=lambda found: found[1])],
        others=_together(rest) if rest else None,
        left_out=len(rest),
        total=total,
        share=opened.share,
        extent=opened.extent,
    )


def _parts(rows: duckdb.DuckDBPyRelation, by: Sequence[str]) -> list[tuple[Slice, Place]]:
    """Return the parts, those with the most texts first, each with its sort key by its dimensions."""
    dimensions = [DIMENSIONS[name] for name in by]
    columns = [f"({each.name})::varchar AS by_{n}, {each.along} AS along_{n}" for n, each in enumerate(dimensions)]
    named = rows.project(", ".join([*columns, "source, kept, reason, status"]))
    names = [f"by_{n}" for n in range(len(by))]
    along = [f"min(along_{n}) AS along_{n}" for n in range(len(by))]
    found = named.aggregate(", ".join([*names, _FIGURES, *along])).order(", ".join(["scored DESC", *names]))
    return [_part(row, len(by)) for row in found.fetchall()]


def _part(row: tuple[Any, ...], dimensions: int) -> tuple[Slice, Place]:
    scored, kept, rejected, failed = row[dimensions : dimensions + 4]
    names = tuple(row[:dimensions])
    reasons, statuses = (dict(sorted((counts or {}).items())) for counts in (rejected, failed))
    # parts without a value sort last
    place = tuple((along is None, along or 0) for along in row[dimensions + 4 :])
    return Slice(names, scored, kept, reasons, statuses), place


def _check(by: Sequence[str], columns: Sequence[str]) -> None:
    unknown = [name for name in by if name not in DIMENSIONS]
    if unknown:
        raise QueryError(f"by {unknown[0]!r}: a run is cut by one of {', '.join(DIMENSIONS)}")
    if "language" in by and "language" not in columns:
        raise QueryError("by 'language': the run was opened without its languages; open it with languages=True")


def _together(parts: Sequence[Slice]) -> Slice:
    """Return the sum of several parts."""
    return Slice(
        names=(),
        scored=sum(part.scored for part in parts),
        kept=sum(part.kept for part in parts),
        rejected=add_up(part.rejected for part in parts),
        failed=add_up(part.failed for part in parts),
    )
