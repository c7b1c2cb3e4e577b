from collections import Counter

import pytest
from pydantic import ValidationError

from capfilt.world.facts import is_true
from capfilt.world.noise import KINDS, Kind, NoiseRates, WebText, web_text
from capfilt.world.scenes import scene_at, stream

RATES = NoiseRates()
SAMPLES = 3000


def web(index: int, rates: NoiseRates = RATES) -> WebText:
    other = scene_at(0, "other", index)
    return web_text(scene_at(0, "web", index), other, stream(0, "web", index, "texts"), rates)


@pytest.fixture(scope="module")
def texts() -> list[WebText]:
    return [web(index) for index in range(SAMPLES)]


def test_every_kind_is_as_frequent_as_its_rate(texts):
    counts = Counter(text.kind for text in texts)
    for kind in KINDS:
        expected = getattr(RATES, kind) * SAMPLES
        assert abs(counts[kind] - expected) < 4 * expected**0.5, kind


def test_true_kinds_are_true_and_no_other_kind_is_but_by_chance(texts):
    true = Counter(web.kind for index, web in enumerate(texts) if is_true(web.text, scene_at(0, "web", index)))
    counts = Counter(web.kind for web in texts)
    by_chance = true.pop("other_image", 0)
    assert true == {"true": counts["true"], "html": counts["html"]}
    assert by_chance < 0.02 * counts["other_image"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_of_one_gives_that_kind_alone(kind: Kind):
    rates = NoiseRates.model_validate(dict.fromkeys(KINDS, 0.0) | {kind: 1.0})
    assert {web(index, rates).kind for index in range(50)} == {kind}


def test_rates_that_do_not_add_up_to_one_are_refused():
    with pytest.raises(ValidationError, match=r"add up to 1\.1; they must add up to 1"):
        NoiseRates(true=0.55)


def test_a_sample_always_gets_the_same_text(texts):
    assert [web(index) for index in range(100)] == texts[:100]
