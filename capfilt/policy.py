"""The policy: which candidates are kept, and why the others are not.

It is a pure function of the ledger and needs no model, so trying another threshold or mix takes seconds. A
sample's "own" texts are those that came with it, web or human; the mixes weigh them against the synthetic ones.
"""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from capfilt.config import Policy
from capfilt.records import CONTROL
from capfilt.texts import MAX_CHARACTERS, clean

RULES = ("not_scored", "too_short", "too_long", "low_itm", "low_itc")
"""Why a candidate fails by itself, whatever the others of its sample."""

REASONS = (*RULES, "duplicate", "mix")
"""Why a candidate is not kept: the first of these rules that rejects it."""

SOURCES = ("web", "human", "synthetic")
"""In order of precedence among equal candidates."""

_SYNTHETIC = SOURCES.index("synthetic")

# what clean may change: characters that may begin a tag or an entity, blanks other than single ones between words, and
# anything but letters, marks, numbers, punctuation and symbols
_DIRTY = r"[<&]|^ |  | $|[^ \p{L}\p{M}\p{N}\p{P}\p{S}]"

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def select(candidates: pa.Table, policy: Policy, texts: pa.Array | None = None) -> pa.Table:
    """Return the candidates with two more columns: `kept`, and `reason` (one of REASONS, null when kept).

    The rules are applied in the order of REASONS. Scores are compared as float32, as they are stored, so a
    text exactly at a threshold is kept. The decision on a candidate depends only on the candidates of its
    sample, the shard's id and the position, not on other rows of the table or on their order.
    Control texts belong to other samples, so no policy selects them: their rows are left out.

    Args:
        candidates: rows of the ledger's candidates table, of any number of shards; of each sample all or none.
        policy: the thresholds and the mix.
        texts: the cleaned texts, if the caller has them.
    """
    own = pc.not_equal(candidates["source"], CONTROL)
    if not pc.all(own, min_count=0).as_py():
        candidates, texts = candidates.filter(own), None if texts is None else texts.filter(own.combine_chunks())
    texts = cleaned(candidates["text"]) if texts is None else texts
    shards = candidates["shard"].combine_chunks().dictionary_encode()
    positions = candidates["position"].to_numpy()
    sources = pc.index_in(candidates["source"], pa.array(SOURCES)).to_numpy()
    columns = {
        "sample": shards.indices.to_numpy().astype(np.int64) * (positions.max(initial=0) + 1) + positions,
        "source": sources.astype(np.int64),
        "index": candidates["caption_index"].to_numpy().astype(np.int64),
    }
    itm = _floats(candidates["itm"])
    reasons = _rules(texts, columns["source"], itm, _floats(candidates["itc"]), policy)
    if policy.drop_duplicates:
        alive = np.flatnonzero(reasons == 0)
        equal = [columns["sample"][alive], same_texts(texts).to_numpy().astype(np.int64)[alive]]
        source = columns["source"][alive]
        first = -source if policy.mix == "synthetic_only" else source  # of equals, keep one that the mix may take
        again = _rank(equal, [first, columns["index"][alive]]) > 0
        reasons[alive[again]] = _code("duplicate")
    alive = np.flatnonzero(reasons == 0)
    drawn = draws_own(shards, positions, policy) if policy.mix == "weighted" else np.zeros(len(positions), np.bool_)
    dropped = _mixed_out({name: column[alive] for name, column in columns.items()}, itm[alive], drawn[alive], policy)
    reasons[alive[dropped]] = _code("mix")
    names = pa.array([None, *REASONS]).take(pa.array(reasons))
    return candidates.append_column("kept", pc.is_null(names)).append_column("reason", names)


def cleaned(texts: pa.ChunkedArray) -> pa.Array:
    """Return texts as they are scored. One vectorised search finds the few that are not clean already."""
    array = texts.combine_chunks()
    dirty = pc.or_(pc.match_substring_regex(array, _DIRTY), pc.greater(pc.utf8_length(array), MAX_CHARACTERS))
    return pc.replace_with_mask(array, dirty, pa.array([clean(text.as_py()) for text in array.filter(dirty)], "string"))


def count_words(texts: pa.Array) -> pa.Array:
    """Return the number of words of each cleaned text."""
    return pc.if_else(pc.equal(texts, ""), 0, pc.add(pc.count_substring(texts, " "), 1))


def same_texts(texts: pa.Array) -> pa.Array:
    """Return a number for each cleaned text: equal for those that count as duplicates of each other in one sample."""
    return pc.utf8_lower(texts).dictionary_encode().indices


def least_itm(policy: Policy) -> dict[str, float]:
    """Return the least P(match) of each source."""
    return {"web": policy.web_itm, "human": policy.human_itm, "synthetic": policy.synthetic_itm}


def least_itc(policy: Policy) -> dict[str, float]:
    """Return the least cosine of each source that has one."""
    bounds = {"web": policy.web_itc, "synthetic": policy.synthetic_itc}
    return {source: bound for source, bound in bounds.items() if bound is not None}


def draws_own(shards: pa.DictionaryArray, positions: Ints, policy: Policy) -> Bools:
    """Return for each sample whether mix: weighted draws its own texts, if it also has synthetic ones."""
    return _chance(shards, positions, policy.seed) < policy.web_weight


def _rules(
    texts: pa.Array, source: Ints, itm: NDArray[np.float32], itc: NDArray[np.float32], policy: Policy
) -> NDArray[np.int8]:
    """Return for each candidate the code of the first of RULES that it fails, 0 for none."""
    words, itm_bounds, itc_bounds = count_words(texts).to_numpy(), least_itm(policy), least_itc(policy)
    cut = np.array([itm_bounds[name] for name in SOURCES], np.float32)[source]
    cosine = np.array([itc_bounds.get(name, -np.inf) for name in SOURCES], np.float32)[source]
    failed = {
        "not_scored": np.isnan(itm) | (np.isnan(itc) & (cosine > -np.inf)),
        "too_short": words < policy.min_words,
        "too_long": words > policy.max_words,
        "low_itm": itm < cut,
        "low_itc": itc < cosine,
    }
    return np.select(list(failed.values()), [np.int8(_code(reason)) for reason in failed], np.int8(0))


def _mixed_out(columns: dict[str, Ints], itm: NDArray[np.float32], own_drawn: Bools, policy: Policy) -> Bools:
    """Return which of the candidates that pass the rules the mix does not take."""
    synthetic: Bools = columns["source"] == _SYNTHETIC
    if policy.mix == "web_only":
        return synthetic
    if policy.mix == "synthetic_only":
        return ~synthetic
    if policy.mix in ("best", "top_k"):
        most = 1 if policy.mix == "best" else policy.top_k
        beaten: Bools = _rank([columns["sample"]], [-itm, columns["source"], columns["index"]]) >= most
        return beaten
    if policy.mix == "both":
        return np.zeros(len(itm), np.bool_)
    has_own = np.isin(columns["sample"], columns["sample"][~synthetic])
    if policy.mix == "web_else_synthetic":
        return synthetic & has_own
    has_both = has_own & np.isin(columns["sample"], columns["sample"][synthetic])
    not_drawn: Bools = has_both & (synthetic == own_drawn)
    return not_drawn


def _rank(group: list[Ints], keys: list[NDArray[np.generic]]) -> Ints:
    """Return each row's place, from 0, among the rows of its group when these are sorted by keys."""
    order = np.lexsort([*reversed(keys), *group])
    first = np.ones(len(order), np.bool_)
    first[1:] = np.any([column[order][1:] != column[order][:-1] for column in group], axis=0)
    places = np.arange(len(order))
    rank = np.empty(len(order), np.int64)
    rank[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return rank


def _chance(shards: pa.DictionaryArray, positions: Ints, seed: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each sample that follows from (seed, shard id, position).

    The hash of seed and shard id starts a SplitMix64 sequence, and the position is the place in it.
    Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014.
    """
    starts = [hashlib.sha256(f"{seed}/{shard}".encode()).digest()[:8] for shard in shards.dictionary.to_pylist()]
    start = np.array([int.from_bytes(digest, "little") for digest in starts], np.uint64)
    z = start[shards.indices.to_numpy()] + (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11), np.float64) * 2.0**-53


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return scores with NaN for those that are missing."""
    return np.asarray(column.cast(pa.float32()).to_numpy(), np.float32)


def _code(reason: str) -> int:
    return REASONS.index(reason) + 1
