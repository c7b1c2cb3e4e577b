import pytest

from capfilt.world.captions import true_statement
from capfilt.world.facts import plain
from capfilt.world.language import Phrase, Statement, parse
from capfilt.world.scenes import scene_at, stream
from capfilt.world.unrelated import ADVERTS, DATES, FILE_NAMES, fill, translate


@pytest.mark.parametrize("template", [*FILE_NAMES, *DATES, *ADVERTS])
def test_a_file_name_date_or_advert_is_no_description(template):
    rng = stream(0, "web", 0, template)
    for _ in range(20):
        text = fill(template, rng)
        assert text
        assert not {"{", "}"} & set(text)
        assert parse(plain(text)) is None, text


def test_a_translation_is_no_description():
    for index in range(500):
        rng = stream(0, "web", index, "foreign")
        text = translate(true_statement(scene_at(0, "web", index), rng), rng)
        assert parse(plain(text)) is None, text


def test_a_translation_says_every_claim_but_the_relation():
    statement = Statement((Phrase(2, "small", "red", "triangle"), Phrase(1, None, None, "star")), "above")
    rng = stream(0, "web", 0, "foreign")
    assert {translate(statement, rng) for _ in range(50)} == {
        "zwei klein rot Dreieck und ein Stern",
        "dos pequeño rojo triángulo y un estrella",
        "два маленький красный треугольник и один звезда",
    }
