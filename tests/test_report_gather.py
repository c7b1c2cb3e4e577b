"""What a report shows is what the ledger says."""

import pytest
from galleries import gallery_run

from capfilt.query import open_run
from capfilt.report.gather import gather


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return gallery_run(tmp_path_factory.mktemp("run")).root


def test_galleries_hold_what_they_say(root):
    with open_run(root) as opened:
        content = gather(opened, samples=6, seed=0)

    cards = {section.id: section.cards for section in content.sections}
    assert list(cards) == ["rejected", "kept", "near", "disagreement", "random"]
    best = cards["rejected"][0].texts[0]  # all of it is markup, so nothing is left to be kept
    assert (best.reason, best.itm) == ("too_short", pytest.approx(0.95))
    assert min(text.itm for card in cards["kept"] for text in card.texts if text.kept) == pytest.approx(0.5)
    assert all(any(abs(text.itm - 0.5) <= 0.05 for text in card.texts) for card in cards["near"])
    assert len(cards["random"]) == 6
    assert [card.status for card in content.failures.cards] == ["too_many_pixels", "truncated"]


def test_slices_add_up_to_the_run(root):
    with open_run(root) as opened:
        content = gather(opened, samples=1, seed=0)

    for slices in content.slices:
        for source, figures in content.figures.sources.items():
            assert sum(row.scored.get(source, 0) for row in slices.rows) == figures.scored
            assert sum(row.kept.get(source, 0) for row in slices.rows) == figures.kept
    by_length = {row.value: row.scored for row in content.slices[2].rows}
    assert list(by_length) == ["0", "1-2", "3-5", "6-10", "51+"]
    assert (by_length["0"], by_length["51+"]) == ({"web": 1}, {"web": 1})
