"""A run cut by language or script, by domain, and by the length of its texts, for each source."""

from capfilt.query.opened import OpenRun
from capfilt.report.content import SliceRow, Slices
from capfilt.stats.slices import DIMENSIONS

MAX_ROWS = 15

_HOW = {
    "language": "As a detector guesses it from the text alone; short texts are often guessed wrong.",
    "script": "The script of most letters of a text. With --languages, a detector guesses languages instead.",
    "domain": "The host of the image's url, also for captions.",
    "words": "Words of the text as it was scored.",
}

# the largest parts one by one, and the sum of all others as a part without a value: there may be a million domains
_PARTS = """
    WITH parts AS (
        SELECT coalesce(({name})::varchar, 'unknown') AS value, min({along}) AS along, source,
               count(*) AS scored, count_if(kept) AS kept
        FROM candidates GROUP BY value, source
    ), ranked AS (
        SELECT *, dense_rank() OVER (ORDER BY total DESC, value) AS rank, rank < {most} AS large
        FROM (SELECT *, sum(scored) OVER (PARTITION BY value) AS total FROM parts)
    )
    SELECT CASE WHEN large THEN value END AS part, source, sum(scored), sum(kept), max(max(rank)) OVER ()
    FROM ranked GROUP BY part, source
    ORDER BY part IS NULL, CASE WHEN {ordered} THEN min(along) END, max(total) DESC, part
"""


def slice_run(opened: OpenRun) -> list[Slices]:
    """Return the slices of a report. One is by language if the run was opened with languages, else by script."""
    letters = "language" if "language" in opened.candidates.columns else "script"
    return [_slices(opened, letters), _slices(opened, "domain"), _slices(opened, "words")]


def _slices(opened: OpenRun, by: str) -> Slices:
    dimension = DIMENSIONS[by]
    ordered = dimension.along != "0"
    query = _PARTS.format(name=dimension.name, along=dimension.along, most=MAX_ROWS, ordered=ordered)
    rows: dict[str | None, SliceRow] = {}
    for value, source, scored, kept, parts in opened.sql(query).fetchall():
        row = rows.setdefault(value, SliceRow(value or f"{parts - MAX_ROWS + 1:,} others", {}, {}))
        row.scored[source], row.kept[source] = int(scored), int(kept)
    return Slices(by, f"By {by}", _HOW[by], list(rows.values()))
