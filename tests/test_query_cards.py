"""A card shows what the policy makes of a sample, in the order in which the policy prefers its texts."""

import pytest
from galleries import gallery_run
from ledgers import SHARD, complete, new_run, record, synthetic, web

from capfilt.config import Policy
from capfilt.ledger import read_candidates
from capfilt.policy import select
from capfilt.query import open_run
from capfilt.query.cards import load_cards
from capfilt.records import Candidate

PLACES = [(f"0000{shard}", position) for shard in range(3) for position in range(8)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return gallery_run(tmp_path_factory.mktemp("run"))


def test_cards_come_in_the_order_of_their_places(run):
    places = [PLACES[n] for n in (17, 3, 23, 0)]
    with open_run(run.root) as opened:
        assert [card.place for card in load_cards(opened, places)] == places
        assert load_cards(opened, []) == []


def test_texts_come_as_the_policy_prefers_equals(tmp_path):
    run = new_run(tmp_path)
    human = Candidate(1, "key1", "human", 0, "by a person", itm=0.5)
    texts = [*(synthetic(1, index=n, text=f"caption {n}") for n in (2, 0, 1)), human, web(1, text="from the web")]
    complete(run, SHARD, [record(n) for n in range(4)], texts)

    with open_run(run.root) as opened:
        (card,) = load_cards(opened, [("00000", 1)])

    assert [text.text for text in card.texts] == ["from the web", "by a person", "caption 0", "caption 1", "caption 2"]


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(web_itm=0.9, synthetic_itm=0.1, mix="best"),
        Policy(web_itc=0.25, synthetic_itc=0.2, min_words=2),
        Policy(mix="web_only", drop_duplicates=False, max_words=3),
    ],
)
def test_a_text_is_admitted_that_passes_where_every_score_is_high_enough_and_no_other_stands_in_its_way(run, policy):
    lenient = {"web_itm": 0, "human_itm": 0, "synthetic_itm": 0, "drop_duplicates": False, "mix": "both"}
    expected = set()
    for shard in run.plan():
        rows = select(read_candidates(run, shard), policy.model_copy(update=lenient)).to_pylist()
        expected |= {(row["shard"], row["position"], row["source"], row["text"]) for row in rows if row["kept"]}

    with open_run(run.root, policy) as opened:
        cards = load_cards(opened, PLACES)

    admitted = {(*card.place, text.source, text.text) for card in cards for text in card.texts if text.admitted}
    assert admitted == expected
    assert expected
