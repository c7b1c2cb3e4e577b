import hashlib

import numpy as np
import pytest
from galleries import SCORES, gallery_run
from ledgers import CHECKPOINTS, SHARD, complete, config, new_run, record, synthetic, web

from capfilt.config import Policy
from capfilt.errors import QueryError
from capfilt.query import open_run
from capfilt.query.cards import load_cards
from capfilt.query.picks import Pick, pick
from capfilt.records import Candidate
from capfilt.runs import start_run

PLACES = [(f"0000{shard}", position) for shard in range(3) for position in range(8)]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with open_run(gallery_run(tmp_path_factory.mktemp("run")).root) as opened:
        yield opened


def places(opened, limit=100, seed=0, **asked):
    return pick(opened, Pick(**asked), limit, seed)


def test_all_samples_are_there_once(opened):
    assert sorted(places(opened)) == PLACES
    assert places(opened, order="position") == sorted(places(opened))


def test_a_draw_is_repeatable_and_another_seed_draws_others(opened):
    assert places(opened, limit=5) == places(opened, limit=24)[:5]
    for seed in (0, 1):
        by_chance = sorted(PLACES, key=lambda p: hashlib.md5(f"{seed}/{p[0]}/{p[1]}".encode()).hexdigest())
        assert places(opened, limit=5, seed=seed) == by_chance[:5]


def test_rejected_and_kept_are_the_policys_words(opened):
    kept, rejected = (places(opened, kept=kept, source="web", where="shard = '00002'") for kept in (True, False))

    assert sorted(kept) == [("00002", n) for n in range(4)]
    assert sorted(rejected) == [("00002", n) for n in range(4, 8)]
    assert {("00001", 6), ("00001", 7)}.isdisjoint(places(opened, kept=False))  # which were not scored


@pytest.mark.parametrize(
    ("order", "first"), [("best", [0, 1, 2]), ("worst", [7, 6, 5]), ("near", [4, 3, 5]), ("position", [0, 1, 2])]
)
def test_the_order_is_by_score(opened, order, first):
    found = places(opened, limit=3, source="web", where="shard = '00002'", order=order)

    assert [position for _, position in found] == first


@pytest.mark.parametrize(
    ("order", "positions"), [("best", [3, 1, 0, 2]), ("worst", [0, 1, 3, 2]), ("near", [1, 3, 0, 2])]
)
def test_whatever_the_order_texts_without_a_score_come_last(tmp_path, order, positions):
    run = new_run(tmp_path)
    complete(run, SHARD, [record(n) for n in range(4)], [web(0, 0.125), web(1, 0.5), web(2, None), web(3, 0.75)])

    with open_run(run.root) as opened:
        assert [position for _, position in places(opened, order=order)] == positions


def test_as_many_samples_come_as_are_asked_for_however_many_texts_the_first_ones_have(tmp_path):
    run = new_run(tmp_path)
    texts = [synthetic(n, 0.9 - n / 10 + index / 1000, index=index) for n in range(4) for index in range(5 - n)]
    complete(run, SHARD, [record(n) for n in range(4)], texts)

    with open_run(run.root) as opened:
        assert [position for _, position in places(opened, limit=3, order="best")] == [0, 1, 2]
        assert [position for _, position in places(opened, limit=3, source="synthetic", order="worst")] == [3, 2, 1]


def test_texts_of_people_are_held_against_their_own_cut(tmp_path):
    run = start_run(config(tmp_path, source="human", policy={"human_itm": 0.25}), CHECKPOINTS)
    run.write_plan([SHARD])
    human = [Candidate(n, f"key{n}", "human", 0, f"text {n}", itm=itm) for n, itm in enumerate((0.1, 0.25, 0.31, 0.9))]
    texts = [text for n in range(4) for text in (human[n], synthetic(n, 0.1 if n else 0.9))]
    complete(run, SHARD, [record(n) for n in range(4)], texts)

    with open_run(run.root) as opened:
        assert sorted(position for _, position in places(opened, source="human", near=True)) == [1]
        assert sorted(position for _, position in places(opened, disagree=True)) == [0, 1, 2, 3]


def test_near_the_cut_asks_for_the_cut_of_the_source(tmp_path):
    run = gallery_run(tmp_path)

    with open_run(run.root, Policy(web_itm=0.92, synthetic_itm=0.2)) as opened:
        near = places(opened, near=True, source="web", where="shard = '00002'")
        captions = places(opened, near=True, source="synthetic", where="shard = '00002'")

    assert sorted(SCORES[position] for _, position in near) == [0.9, 0.95]
    assert sorted(SCORES[7 - position] for _, position in captions) == [0.2]


def test_near_are_scores_that_are_no_farther_from_the_cut(tmp_path):
    run = new_run(tmp_path)
    scores = 0.05, float(np.nextafter(np.float32(0.05), np.float32(0))), 0.1, 0.14
    complete(run, SHARD, [record(n) for n in range(4)], [web(n, score) for n, score in enumerate(scores)])

    with open_run(run.root, Policy(web_itm=0.1)) as opened:
        assert sorted(position for _, position in places(opened, near=True)) == [0, 2, 3]


@pytest.mark.parametrize("cut", [0.9, 1e-05])
def test_a_side_whose_text_is_exactly_at_its_cut_reaches_it(tmp_path, cut):
    run = new_run(tmp_path)
    texts = [web(0, cut), synthetic(0, 0.0), web(1, 0.0), synthetic(1, cut), web(2, cut), synthetic(2, cut)]
    complete(run, SHARD, [record(n) for n in range(4)], texts)

    with open_run(run.root, Policy(web_itm=cut, synthetic_itm=cut)) as opened:
        assert sorted(position for _, position in places(opened, disagree=True)) == [0, 1]


def test_of_samples_with_scores_of_one_side_alone_none_is_in_the_order_of_disagreement(tmp_path):
    run = new_run(tmp_path)
    texts = [web(0), synthetic(0, None), synthetic(1), web(2), synthetic(2)]
    complete(run, SHARD, [record(n) for n in range(4)], texts)

    with open_run(run.root) as opened:
        assert places(opened, order="disagreement") == [("00000", 2)]
        for order in ("random", "position"):
            assert sorted(places(opened, order=order)) == [("00000", n) for n in range(4)]  # also that without a text


def test_disagreement_is_between_a_samples_own_text_and_its_best_caption(opened):
    found = load_cards(opened, places(opened, order="disagreement", limit=5))

    gaps = []
    for card in found:
        own, captions = ([t.itm for t in card.texts if (t.source == "web") == web] for web in (True, False))
        gaps.append(round(abs(max(own) - max(captions)), 2))
    assert gaps == [0.9, 0.9, 0.9, 0.9, 0.7]
    # one sample has captions alone, and two have no text
    assert set(PLACES) - set(places(opened, order="disagreement")) == {("00001", n) for n in (2, 6, 7)}


def test_sides_disagree_when_one_alone_meets_the_thresholds(opened):
    found = load_cards(opened, places(opened, disagree=True, where="shard = '00001'"))

    assert sorted(card.key for card in found) == ["key1", "key5"]


@pytest.mark.parametrize(("order", "positions"), [("best", [1, 5]), ("worst", [1, 5]), ("near", [5, 1])])
def test_sides_that_disagree_are_ordered_by_the_scores_of_their_texts(opened, order, positions):
    found = places(opened, disagree=True, where="shard = '00001' AND itm IS NOT NULL", order=order)

    assert [position for _, position in found] == positions


def test_a_condition_does_not_hide_the_other_side(opened):
    """The rejected web text of a sample is asked for, and its kept caption decides whether the two disagree."""
    found = places(opened, disagree=True, kept=False, source="web", where="shard = '00001'")

    assert sorted(position for _, position in found) == [1, 5]


def test_a_condition_of_two_alternatives_is_met_beside_what_else_is_asked(opened):
    assert places(opened, kept=True, source="web", where="key = 'none' OR shard = '00002' AND position IN (0, 7)") == [
        ("00002", 0)
    ]


def test_failures_are_found_with_their_reason(opened):
    assert sorted(places(opened, failed=True)) == [("00001", 6), ("00001", 7)]
    assert places(opened, failed=True, reasons=("truncated",)) == [("00001", 6)]
    assert places(opened, reasons=("duplicate",), where="source = 'synthetic' AND itm > 0.65") == [("00001", 2)]


def test_a_sample_is_found_by_its_key(opened):
    (card,) = load_cards(opened, places(opened, key="<b>3"))

    assert (card.shard, card.position) == ("00000", 3)
    assert [(text.source, text.text) for text in card.texts] == [("web", "a dog"), ("synthetic", "a caption 3")]


@pytest.mark.parametrize("where", ["nothing = 1", "itm >", "1); DROP TABLE samples; --", "itm > 'a'", "true) OR (true"])
def test_a_wrong_condition_is_told_in_one_line(opened, where):
    with pytest.raises(QueryError) as error:
        places(opened, where=where)

    assert "\n" not in str(error.value)


def test_a_condition_cannot_reach_other_files(opened, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")

    with pytest.raises(QueryError, match="disabled"):
        places(opened, where=f"position IN (SELECT a FROM read_csv('{tmp_path}/secret.csv'))")


@pytest.mark.parametrize("order", ["random", "position", "best"])
@pytest.mark.parametrize("where", ["text <> '$seed $key $source $reasons'", "shard = '00002' -- web alone"])
def test_a_condition_may_hold_the_names_of_our_parameters_and_end_in_a_comment(opened, where, order):
    assert set(places(opened, where=where, order=order)) >= {("00002", n) for n in range(8)}
