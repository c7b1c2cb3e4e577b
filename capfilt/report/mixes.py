"""What a policy's mix keeps at any two thresholds: of captions alone, and of captions next to an own text.

A sample has at most one own text. Below its threshold it might as well not exist, so there are two cases for a sample,
and in each of them the mix takes captions from the best down, whatever their threshold.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from capfilt.config import Policy
from capfilt.policy import draws_own
from capfilt.query.cards import admitted
from capfilt.query.opened import OpenRun

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

_SAMPLES = """
    WITH texts AS (
        SELECT shard, position, max(itm) FILTER (source <> 'synthetic') AS own,
               max(itm) FILTER (source = 'synthetic') AS caption
        FROM (SELECT *, {same} AS twin FROM read_parquet(?)) WHERE {admitted} GROUP BY shard, position, twin
    )
    SELECT shard, position, max(own) AS own,
           list(caption ORDER BY caption DESC) FILTER (caption IS NOT NULL) AS captions,
           list(caption ORDER BY caption DESC) FILTER (own IS NULL) AS others
    FROM texts GROUP BY shard, position
"""


@dataclass(frozen=True, slots=True)
class Captions:
    """Distinct captions of some samples, sample by sample, the best of each first."""

    sample: Ints  # row of the sample
    itm: Floats
    bin: Ints  # of the score
    rank: Ints  # from 0, among those of the sample

    def where(self, chosen: Bools) -> "Captions":
        """Return some of them."""
        return Captions(self.sample[chosen], self.itm[chosen], self.bin[chosen], self.rank[chosen])

    def firsts(self) -> "Captions":
        """Return the best of each sample."""
        return self.where(self.rank == 0)

    def none(self) -> "Captions":
        """Return none of them."""
        return self.where(np.zeros(len(self.rank), np.bool_))


@dataclass(frozen=True, slots=True)
class Samples:
    """The texts of some samples that pass all rules of a policy but thresholds of P(match) and mix."""

    own: Floats  # P(match) of the own text; NaN if there is none
    bin: Ints  # of that score; meaningless if there is none
    drawn: Bools  # whether mix: weighted draws the own text
    captions: Captions
    others: Captions  # those that do not repeat the own text


@dataclass(frozen=True, slots=True)
class Mixed:
    """What a mix keeps of samples, of the texts that reach their thresholds."""

    own: bool  # whether own texts are kept
    rivals: Captions  # one that reaches its threshold replaces the own text of its sample
    alone: Captions  # kept if there is no own text, or one below its threshold
    beside: Captions  # kept if the own text reaches its threshold


def read_samples(opened: OpenRun, edges: Sequence[float]) -> Iterator[Samples]:
    """Yield the samples that have such a text, some ten thousand at a time, so that memory is bounded.

    Args:
        opened: the run.
        edges: of the bins of scores, ascending; a bin holds its lower edge.
    """
    policy = opened.policy
    same = "same" if policy.drop_duplicates else "row_number() OVER ()"
    query = _SAMPLES.format(same=same, admitted=admitted(policy))
    bounds = np.array(edges, np.float32)  # scores are compared as the float32 they are stored as
    for path in opened.files["candidates"]:  # of whole samples each
        found = opened.connection.sql(query, params=[path]).to_arrow_table()
        yield _samples(found.combine_chunks(), policy, bounds)


def mix(samples: Samples, policy: Policy) -> Mixed:
    """Return what a policy's mix keeps of samples: the same as policy.select, for all thresholds at once."""
    captions, others = samples.captions, samples.others
    if policy.mix == "web_only":
        return Mixed(own=True, rivals=captions.none(), alone=captions.none(), beside=captions.none())
    if policy.mix == "web_else_synthetic":
        return Mixed(own=True, rivals=captions.none(), alone=captions, beside=captions.none())
    if policy.mix == "weighted":
        beside = others.where(~samples.drawn[others.sample])
        return Mixed(own=True, rivals=beside.firsts(), alone=captions, beside=beside)
    if policy.mix in ("best", "top_k"):
        return _best(samples, 1 if policy.mix == "best" else policy.top_k)
    if policy.mix == "synthetic_only":
        return Mixed(own=False, rivals=captions.none(), alone=captions, beside=captions)
    return Mixed(own=True, rivals=captions.none(), alone=captions, beside=others)


def _best(samples: Samples, most: int) -> Mixed:
    """Return the best `most` texts of each sample; among equals the own text comes first."""
    captions, others = samples.captions, samples.others
    last = (others.rank == most - 1) & (others.itm > samples.own[others.sample])
    return Mixed(
        own=True,
        rivals=others.where(last),
        alone=captions.where(captions.rank < most),
        beside=others.where((others.rank < most - 1) | last),
    )


def _samples(found: pa.Table, policy: Policy, bounds: Floats) -> Samples:
    own = np.asarray(found["own"].to_numpy(), np.float32)
    drawn = np.zeros(len(own), np.bool_)
    if policy.mix == "weighted":
        shards = found["shard"].combine_chunks().dictionary_encode()
        drawn = draws_own(shards, found["position"].to_numpy(), policy)
    captions, others = (_captions(found[name].combine_chunks(), bounds) for name in ("captions", "others"))
    return Samples(own, _bins(own, bounds), drawn, captions, others)


def _captions(lists: pa.ListArray, bounds: Floats) -> Captions:
    sample = pc.list_parent_indices(lists).to_numpy().astype(np.int64)
    itm = np.asarray(lists.flatten().to_numpy(False), np.float32)
    places = np.arange(len(sample))
    first = np.ones(len(sample), np.bool_)
    first[1:] = sample[1:] != sample[:-1]
    return Captions(sample, itm, _bins(itm, bounds), places - np.maximum.accumulate(np.where(first, places, 0)))


def _bins(scores: Floats, bounds: Floats) -> Ints:
    return np.searchsorted(bounds, scores, side="right") - 1
