"""Choose samples to look at: by the decisions on their texts, in an order, or by a seeded draw.

A draw sorts by the md5 of seed, shard and position: it is the same on every machine and in every version.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from capfilt.policy import least_itm
from capfilt.query.cards import Place
from capfilt.query.opened import OpenRun
from capfilt.query.where import filtered, query_errors

NEAR = 0.05
"""A text is near the cut if its P(match) differs from it by no more than this."""

_MOST = 2**63 - 1  # of DuckDB's LIMIT

Order = Literal["random", "position", "best", "worst", "near", "disagreement"]

_BY = {
    "random": "md5(concat_ws('/', $seed, shard, position))",
    "position": "shard",
    "best": "itm DESC NULLS LAST",
    "worst": "itm NULLS LAST",
    "near": "abs(itm - cut) NULLS LAST",
    "disagreement": "abs(own_itm - synthetic_itm) DESC NULLS LAST",
}


@dataclass(frozen=True, slots=True)
class Pick:
    """Which samples: those with a text that meets all of the conditions, in an order."""

    kept: bool | None = None  # by the policy; None: either
    near: bool = False  # within NEAR of the cut of its source
    failed: bool = False  # samples that were not scored, and have no text
    source: str | None = None
    reasons: tuple[str, ...] = ()  # of the policy, or the status of a sample that was not scored
    key: str | None = None
    where: str | None = None  # a condition on the columns of outcomes
    disagree: bool = False  # the own text or the best caption reaches its cut, but not both
    order: Order = "random"


def pick(opened: OpenRun, asked: Pick, limit: int, seed: int = 0) -> list[Place]:
    """Return the places of at most `limit` samples. The first of a sample's texts in the order counts.

    Raises:
        QueryError: `where` is no condition on the columns of outcomes.
    """
    filtered(opened.outcomes, asked.where)
    texts = " AND ".join(_texts(asked))
    samples = " AND ".join(_samples(opened, asked))
    cuts = " ".join(f"WHEN '{source}' THEN {cut}::FLOAT" for source, cut in least_itm(opened.policy).items())
    found = f"(SELECT *, CASE source {cuts} END AS cut FROM outcomes) WHERE {texts or 'true'}"  # noqa: S608
    most = limit  # rows among which there are `limit` samples
    if asked.order in ("best", "worst", "near") or (texts and not samples):  # by the score of a text, or its conditions
        inside = f"AND (shard, position) IN (SELECT (shard, position) FROM samples WHERE {samples})" if samples else ""  # noqa: S608
        found = f"{found} {inside}"
        most *= max(1, *opened.sql("SELECT coalesce(max(texts), 0) FROM samples").fetchall()[0])
    else:
        inside = f"AND (shard, position) IN (SELECT (shard, position) FROM {found})" if texts else ""  # noqa: S608
        found = f"samples WHERE {samples or 'true'} {inside}"
    order = f"{_BY[asked.order]}, shard, position LIMIT {min(most, _MOST)}"
    query = f"SELECT shard, position FROM {found} ORDER BY {order}"  # noqa: S608
    values: dict[str, object] = {"seed": str(seed) if asked.order == "random" else None, "source": asked.source}
    values |= {"reasons": list(asked.reasons) or None, "key": asked.key}
    used = {name: value for name, value in values.items() if value is not None}  # DuckDB refuses one too many
    with query_errors(asked.where, opened.outcomes.columns):
        rows = opened.connection.execute(query, used).fetchall()
    return list(dict.fromkeys((shard, position) for shard, position in rows))[:limit]


def _texts(asked: Pick) -> Iterator[str]:
    """Yield the conditions on a single text, or on a sample that was not scored."""
    if asked.kept is not None:
        yield "kept" if asked.kept else "NOT kept"
    if asked.near:
        yield f"abs(itm - cut) <= {NEAR}"
    if asked.failed:
        yield "status <> 'ok'"
    if asked.source is not None:
        yield "source = $source"
    if asked.reasons:
        yield "coalesce(reason, status) IN $reasons"
    if asked.key is not None:
        yield "key = $key"
    if asked.where is not None:
        yield f"({asked.where}\n)"  # it may end in a comment


def _samples(opened: OpenRun, asked: Pick) -> Iterator[str]:
    """Yield the conditions on a sample as a whole."""
    cuts = least_itm(opened.policy)
    if asked.disagree:
        own = cuts[opened.run.config().source]
        yield f"(own_itm >= {own}::FLOAT) <> (synthetic_itm >= {cuts['synthetic']}::FLOAT)"
    if asked.order == "disagreement":
        yield "own_itm IS NOT NULL AND synthetic_itm IS NOT NULL"
