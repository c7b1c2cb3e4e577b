"""The figures of a scan from the rows of all samples, counted by DuckDB within its memory limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from capfilt.scan.alike import TELLS_LOOKS, count_alike
from capfilt.stats.scores import QUANTILES, quantiles_of

PLACEHOLDER = 5
"""A file with at least so many different texts is a placeholder: "image removed", a logo, a tracking pixel."""

LISTED = 10  # values that repeat most

_SIZES = {
    "shorter side": "least(width, height)",
    "longer to shorter": "round(greatest(width, height) / least(width, height), 2)",
    "kilobytes": "round(bytes / 1024, 1)",
}
_NAMED = "regexp_extract(shard, '[^/]*$') || ': ' || key"
_WORDS = "len(string_split(text, ' '))"


@dataclass(frozen=True, slots=True)
class Repeated:
    """A value that several samples have."""

    value: str  # hash of the file, text, URL or domain
    samples: int
    different: int  # texts of a file or URL; files of a text or domain
    example: str  # name of its shard, and its key


def count(connection: duckdb.DuckDBPyConnection, left_out: Sequence[str], max_failed_share: float) -> dict[str, Any]:
    """Return the figures of a scan that follow from its table of samples.

    Args:
        connection: has the table samples, with the columns of look.table.
        left_out: URLs of the shards that a bootstrap leaves out.
        max_failed_share: of a shard's samples.
    """
    samples = connection.table("samples")
    connection.register("left_out", _shards(left_out))
    whole = connection.sql("SELECT shard, status FROM samples ANTI JOIN left_out USING (shard)")
    shown = samples.filter("status = 'ok'")
    said = samples.filter("text <> ''")
    shares = whole.aggregate("shard, avg((status <> 'ok')::int) AS failed")
    failing = dict(shares.filter(f"failed > {max_failed_share}").order("shard").fetchall())
    connection.register("failing", _shards(list(failing)))
    usable = connection.sql(
        "SELECT status FROM samples ANTI JOIN left_out USING (shard) ANTI JOIN failing USING (shard)"
    )
    return {
        "looked_at": _number(samples, "count(*)"),
        "statuses": _by(samples, "status"),
        "text_statuses": _by(samples, "text_status"),
        "examples": _examples(samples),
        "bytes": _number(samples, "sum(bytes)"),
        "formats": _by(shown, "format"),
        "scripts": _by(said, "script"),
        "languages": _by(said.filter("language IS NOT NULL"), "language") or None,
        "sizes": {name: _quantiles(shown, sql) for name, sql in _SIZES.items()} | {"words": _quantiles(said, _WORDS)},
        "blank": _number(shown, "count(*) FILTER (blank)"),
        **_copies(samples),
        "alike": count_alike(connection, shown) if TELLS_LOOKS else None,
        "repeated_texts": _number(said.aggregate("lower(text), count(*) AS n").filter("n > 1"), "sum(n)"),
        "files": _repeated(samples, "sha256", "lower(text)"),
        "texts": _repeated(samples, "lower(text)", "sha256"),
        "urls": _repeated(samples, "url", "lower(text)"),
        "domains": _repeated(samples, "domain", "sha256"),
        "usable": _by(usable, "status"),
        "failing_shards": failing,
    }


def _shards(urls: Sequence[str]) -> pa.Table:
    return pa.table({"shard": pa.array(urls, pa.string())})


def _number(rows: duckdb.DuckDBPyRelation, figure: str) -> int:
    return int(rows.aggregate(f"{figure} AS figure").fetchall()[0][0] or 0)


def _by(rows: duckdb.DuckDBPyRelation, column: str) -> dict[str, int]:
    """Return the number of rows with each value of a column, the most frequent first."""
    return dict(rows.aggregate(f"{column}, count(*) AS n").order(f"n DESC, {column}").fetchall())


def _examples(samples: duckdb.DuckDBPyRelation) -> dict[str, str]:
    """Return an example of each status, or text status if the image is ok, the most frequent first."""
    reason, example = "if(status = 'ok', text_status, status)", f"min({_NAMED} || ': ' || error)"
    reasons = samples.filter("error <> ''").aggregate(f"{reason} AS reason, {example} AS example, count(*) AS n")
    return dict(reasons.order("n DESC, reason").project("reason, example").fetchall())


def _quantiles(rows: duckdb.DuckDBPyRelation, value: str) -> dict[str, float]:
    found = rows.aggregate(quantiles_of(value)).fetchall()[0]
    return {name: float(each) for name, each in zip(QUANTILES, found, strict=True) if each is not None}


def _copies(samples: duckdb.DuckDBPyRelation) -> dict[str, int]:
    texts = "count(DISTINCT lower(text)) FILTER (text <> '') AS texts"
    files = samples.filter("sha256 <> ''").aggregate(f"sha256, count(*) AS n, {texts}")
    return {
        "copies": _number(files, "sum(n - 1)"),
        "copied": _number(files, "count(*) FILTER (n > 1)"),
        "placeholders": _number(files.filter(f"texts >= {PLACEHOLDER}"), "sum(n)"),
    }


def _repeated(rows: duckdb.DuckDBPyRelation, value: str, different: str) -> list[Repeated]:
    figures = f"count(*) AS n, count(DISTINCT nullif({different}, '')) AS d, min({_NAMED}) AS example"
    groups = rows.aggregate(f"{value} AS value, {figures}").filter("n > 1 AND value <> ''")
    return [Repeated(*row) for row in groups.order("n DESC, value").limit(LISTED).fetchall()]
