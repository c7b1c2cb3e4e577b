"""How texts differ by source: lengths, repetitions, vocabulary and diversity."""

from dataclasses import asdict, dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capfilt.policy import SOURCES
from capfilt.query import OpenRun, filtered
from capfilt.query.where import query_errors
from capfilt.stats.scores import QUANTILES, quantiles_of

MAX_WORDS = 1_000_000
"""Words of each source on which diversity is measured: it falls with their number, so all sources get equally many."""

REPEATED = 5  # most repeated texts that are named

# All but letters, marks and numbers separates words, so that "dog," is the word "dog".
_WORDS = r"trim(regexp_replace(lower(text), '[^\p{L}\p{M}\p{N}]+', ' ', 'g'))"
# Draws the same positions of all shards, evenly spread: Knuth's multiplicative hashing (TAOCP 3, 6.4).
_CHANCE = "(position * 2654435761 % 4294967296) / 4294967296.0"


@dataclass(frozen=True, slots=True)
class TextStats:
    """The texts of one source."""

    texts: int
    distinct: int  # different texts, case aside
    repeated: list[tuple[str, int]]  # the most repeated texts, in lower case, and how often each occurs
    words: dict[str, float]  # of a text: mean, p5, p25, ...
    sampled_words: int  # the following are measured on so many words
    vocabulary: int  # different words
    distinct_1: float  # share of different words
    distinct_2: float  # share of different pairs of neighbouring words

    @property
    def duplicates(self) -> float:
        """The share of texts that repeat another one."""
        return 1 - self.distinct / self.texts

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        return asdict(self) | {"duplicates": self.duplicates}


def describe_texts(opened: OpenRun, where: str | None = None) -> dict[str, TextStats]:
    """Return the figures of the texts of each source that has any.

    Diversity is measured on about as many words of each source, MAX_WORDS at most, from samples drawn by position.

    Raises:
        QueryError: where is no condition on the columns of opened.candidates.
    """
    rows = filtered(opened.candidates, where)
    with query_errors(where, rows.columns):
        totals = dict(rows.aggregate("source, sum(words)::bigint AS n").fetchall())
        wanted = min([MAX_WORDS, *(total for total in totals.values() if total)])
        return {
            source: _describe(rows.filter(f"source = '{source}'"), min(1.0, wanted / max(totals[source], 1)))
            for source in SOURCES
            if source in totals
        }


def _describe(rows: duckdb.DuckDBPyRelation, share: float) -> TextStats:
    texts, *lengths = rows.aggregate(f"count(*) AS n, avg(words) AS mean, {quantiles_of('words')}").fetchall()[0]
    alike = rows.aggregate("lower(text) AS folded, count(*) AS n")
    most = f"min({{'n': -n, 'folded': folded}}, {REPEATED}) FILTER (n > 1)"  # in the same single pass over all texts
    distinct, repeated = alike.aggregate(f"count(*) AS n, {most} AS repeated").fetchall()[0]
    # _count drops empty texts: a filter here would run on all texts, before the draw
    sample = rows.filter(f"{_CHANCE} < {share}").project(f"{_WORDS} AS words")
    words, vocabulary, pairs, kinds = _count(sample.to_arrow_table()["words"])
    return TextStats(
        texts=texts,
        distinct=distinct,
        repeated=[(each["folded"], -each["n"]) for each in repeated or ()],
        words=dict(zip(["mean", *QUANTILES], map(float, lengths), strict=True)),
        sampled_words=words,
        vocabulary=vocabulary,
        distinct_1=vocabulary / words if words else 0.0,
        distinct_2=kinds / pairs if pairs else 0.0,
    )


def _count(texts: pa.ChunkedArray) -> tuple[int, int, int, int]:
    """Return the number of words, of different words, of pairs of neighbours, and of different pairs."""
    lists = pc.split_pattern(texts.filter(pc.not_equal(texts, "")).combine_chunks(), " ")
    words = lists.flatten().dictionary_encode()
    codes, text = words.indices.to_numpy().astype(np.int64), pc.list_parent_indices(lists).to_numpy()
    pairs = (codes[:-1] * len(words.dictionary) + codes[1:])[text[:-1] == text[1:]]
    return len(codes), len(words.dictionary), len(pairs), len(np.unique(pairs))
