import hashlib
import math
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ledgers import synthetic, web

from capfilt.config import Policy
from capfilt.ledger import candidates_table
from capfilt.policy import REASONS, SOURCES, cleaned, select
from capfilt.records import Candidate
from capfilt.texts import clean

MIXES = get_args(Policy.model_fields["mix"].annotation)
WORDS = ["dog", "a cat", "A  Cat", "a <b>cat</b>", "one two three", " one two three four ", "&amp;", "", "über alles"]
SCORES = st.sampled_from([None, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0])

candidates_of = st.lists(
    st.builds(
        lambda **fields: Candidate(**fields),  # or those that are not given are drawn, too
        position=st.integers(0, 3),
        key=st.just("k"),
        source=st.sampled_from(SOURCES),
        caption_index=st.integers(0, 2),
        text=st.sampled_from(WORDS),
        itm=SCORES,
        itc=SCORES,
    ),
    max_size=12,
    unique_by=lambda candidate: (candidate.position, candidate.source, candidate.caption_index),
)
policies = st.builds(
    Policy,
    web_itm=st.sampled_from([0.0, 0.5, 0.9]),
    synthetic_itm=st.sampled_from([0.0, 0.5, 0.9]),
    human_itm=st.sampled_from([0.0, 0.5]),
    web_itc=st.sampled_from([None, 0.5]),
    synthetic_itc=st.sampled_from([None, 0.25]),
    top_k=st.integers(1, 3),
    web_weight=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(-3, 3),
    min_words=st.integers(0, 2),
    max_words=st.integers(1, 3),
    drop_duplicates=st.booleans(),
)


def outcome(candidates, **policy):
    """Return the reason of each candidate of the shard "00000", None for those that are kept."""
    selection = select(candidates_table("00000", candidates), Policy(**policy))
    assert selection["kept"].to_pylist() == [reason is None for reason in selection["reason"].to_pylist()]
    return selection["reason"].to_pylist()


@pytest.mark.parametrize("mix", MIXES)
@given(candidates=candidates_of, policy=policies)
def test_the_selection_is_that_of_the_rules_written_out(mix, candidates, policy):
    policy = policy.model_copy(update={"mix": mix})

    selection = select(candidates_table("00000", candidates), policy)

    assert selection["reason"].to_pylist() == written_out("00000", candidates, policy)


def test_captions_alone_are_kept_also_where_one_repeats_the_web_text():
    candidates = [Candidate(0, "a", "web", 0, "A dog.", itm=0.9), Candidate(0, "a", "synthetic", 0, "a dog.", itm=0.8)]
    assert outcome(candidates, mix="synthetic_only", min_words=0) == ["duplicate", None]
    assert outcome(candidates, mix="both", min_words=0) == [None, "duplicate"]


def written_out(shard, candidates, policy):
    """The rules, one candidate at a time."""
    reasons = {id(candidate): by_itself(candidate, policy) for candidate in candidates}
    for position in {candidate.position for candidate in candidates}:
        alive = [c for c in candidates if c.position == position and reasons[id(c)] is None]
        captions_first = policy.mix == "synthetic_only"
        alive.sort(key=lambda c: (SOURCES.index(c.source) * (-1 if captions_first else 1), c.caption_index))
        seen = set()
        for candidate in list(alive) if policy.drop_duplicates else []:
            text = clean(candidate.text).lower()
            if text in seen:
                reasons[id(candidate)] = "duplicate"
                alive.remove(candidate)
            seen.add(text)
        taken = mixed(shard, position, alive, policy)
        for candidate in alive:
            if candidate not in taken:
                reasons[id(candidate)] = "mix"
    return [reasons[id(candidate)] for candidate in candidates]


def by_itself(candidate, policy):
    least = {"web": policy.web_itm, "human": policy.human_itm, "synthetic": policy.synthetic_itm}[candidate.source]
    least_itc = {"web": policy.web_itc, "human": None, "synthetic": policy.synthetic_itc}[candidate.source]
    words = len(clean(candidate.text).split())
    if candidate.itm is None or (least_itc is not None and candidate.itc is None):
        return "not_scored"
    if words < policy.min_words:
        return "too_short"
    if words > policy.max_words:
        return "too_long"
    if candidate.itm < least:
        return "low_itm"
    if least_itc is not None and candidate.itc < least_itc:
        return "low_itc"
    return None


def mixed(shard, position, alive, policy):
    own = [c for c in alive if c.source != "synthetic"]
    written = [c for c in alive if c.source == "synthetic"]
    best = sorted(alive, key=lambda c: -c.itm)  # stable, so that the order of precedence breaks ties
    draws_own = chance(shard, position, policy.seed) < policy.web_weight
    return {
        "both": alive,
        "web_else_synthetic": own or written,
        "best": best[:1],
        "top_k": best[: policy.top_k],
        "web_only": own,
        "synthetic_only": written,
        "weighted": (own or written) if draws_own else (written or own),
    }[policy.mix]


def chance(shard, position, seed):
    """SplitMix64 as its authors write it, in whole numbers."""
    mask = 2**64 - 1
    state = int.from_bytes(hashlib.sha256(f"{seed}/{shard}".encode()).digest()[:8], "little")
    z = (state + (position + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / 2**53


@given(candidates=candidates_of, policy=policies, mix=st.sampled_from(MIXES), order=st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_other_shards_matter(candidates, policy, mix, order):
    policy = policy.model_copy(update={"mix": mix})
    alone = select(candidates_table("00000", candidates), policy)["reason"].to_pylist()
    shuffled = list(range(len(candidates)))
    order.shuffle(shuffled)
    table = candidates_table("00000", [candidates[place] for place in shuffled])
    other = candidates_table("00001", candidates[::-1])

    together = select(pa.concat_tables([other, table]), policy)["reason"].to_pylist()[len(candidates) :]

    assert together == [alone[place] for place in shuffled]


@given(st.lists(st.text() | st.text("ab <>&;'\t\n", max_size=8) | st.sampled_from(WORDS)))
@example(["ab " * 4000, "a" * 10_001])
def test_cleaning_a_column_is_cleaning_each_text(texts):
    texts = [text for text in texts if text.isprintable() or text.isascii()]  # the ledger holds valid UTF-8 alone

    assert cleaned(pa.chunked_array([texts], pa.string())).to_pylist() == [clean(text) for text in texts]


def test_every_character_is_told_clean_from_dirty_as_cleaning_does():
    characters = [chr(code) for code in [*range(0x3100), *range(0xFB00, 0x10000), *range(0xE0000, 0xE0080)]]
    texts = [f"a{character}b" for character in characters]

    assert cleaned(pa.chunked_array([texts])).to_pylist() == [clean(text) for text in texts]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.9])
def test_a_text_at_the_threshold_is_kept(threshold):
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))

    assert outcome([web(0, threshold), web(1, below)], web_itm=threshold) == [None, "low_itm"]
    assert outcome([web(0, itc=threshold), web(1, itc=below)], web_itc=threshold) == [None, "low_itc"]


def test_blips_rule_is_the_default():
    texts = [web(0, 0.6, "a"), synthetic(0, 0.4, "b"), web(1, 0.4, "a"), synthetic(1, 0.6, "b"), web(2, 0.4, "a")]

    assert outcome(texts) == [None, "low_itm", "low_itm", None, "low_itm"]


def test_each_source_has_its_own_threshold():
    texts = [web(0, 0.6, "a"), synthetic(0, 0.6, "b"), Candidate(1, "k", "human", 0, "c", itm=0.01)]

    assert outcome(texts, web_itm=0.7, synthetic_itm=0.5) == ["low_itm", None, None]


@pytest.mark.parametrize("score", [None, math.nan])
def test_a_text_without_a_score_is_never_kept(score):
    assert outcome([web(0, score)], web_itm=0.0) == ["not_scored"]


def test_of_equal_texts_the_web_text_stays():
    texts = [synthetic(0, 0.9, "a gnü", 0), synthetic(0, 0.9, "a  GNÜ", 1), web(0, 0.6, "<i>A gnü</i>"), web(1, 0.6)]

    assert outcome(texts) == ["duplicate", "duplicate", None, None]
    assert outcome(texts, drop_duplicates=False) == [None] * 4


def test_of_texts_that_fit_equally_well_the_web_text_is_best_and_then_the_captions_by_number():
    texts = [synthetic(0, 0.5, "a dog", 1), synthetic(0, 0.5, "a cat", 0), web(0, 0.5)]

    assert outcome(texts, mix="best") == ["mix", "mix", None]
    assert outcome(texts, mix="top_k", top_k=2) == ["mix", None, None]


def test_texts_of_other_samples_and_other_shards_are_no_duplicates():
    tables = [candidates_table(shard, [web(place) for place in range(4)]) for shard in ("00000", "00001", "00002")]

    assert select(pa.concat_tables(tables), Policy())["kept"].to_pylist() == [True] * 12


def test_a_rejected_text_makes_no_other_a_duplicate():
    assert outcome([web(0, 0.6, "a dog"), synthetic(0, 0.6, "a dog")], web_itm=0.7) == ["low_itm", None]


def test_the_weighted_draw_has_its_weight_and_follows_its_seed():
    texts = [make(place, 0.9) for place in range(4000) for make in (web, synthetic)]

    def own(**policy):
        return [reason is None for reason in outcome(texts, mix="weighted", web_weight=0.3, **policy)][::2]

    assert abs(np.mean(own()) - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 4000)
    assert own() == [chance("00000", place, seed=0) < 0.3 for place in range(4000)]
    assert own(seed=1) != own()


def test_an_empty_table_selects_nothing():
    selection = select(candidates_table("00000", []), Policy(mix="weighted"))

    assert selection.num_rows == 0
    assert selection.column_names[-2:] == ["kept", "reason"]


def test_every_reason_can_be_given():
    texts = [web(0, None), web(1, text=""), web(2, text="w " * 300), web(3, 0.1), web(4, itc=-1.0)]
    texts += [web(5), synthetic(5, text="a web text"), web(6), synthetic(6)]

    assert outcome(texts, web_itc=0.0, mix="web_else_synthetic") == [*REASONS[:5], None, "duplicate", None, "mix"]
