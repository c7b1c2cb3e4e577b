import pytest

from capfilt.world.captions import true_statement
from capfilt.world.language import Phrase, Statement, parse, write
from capfilt.world.scenes import scene_at, stream


def test_what_is_written_is_read_back_as_the_same_statement():
    for index in range(2000):
        rng = stream(0, "train", index, "language")
        statement = true_statement(scene_at(0, "train", index), rng)
        assert parse(write(statement, rng)) == statement


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("a triangle", Statement((Phrase(1, None, None, "triangle"),))),
        ("an orange triangle", Statement((Phrase(1, None, "orange", "triangle"),))),
        ("big squares", Statement((Phrase(None, "large", None, "square"),))),
        ("a pair of stars at the top", Statement((Phrase(2, None, None, "star", "top"),))),
        (
            "one triangle on the left of three stars",
            Statement((Phrase(1, None, None, "triangle"), Phrase(3, None, None, "star")), "left"),
        ),
        (
            "a triangle on the left and three stars on the right side",
            Statement((Phrase(1, None, None, "triangle", "left"), Phrase(3, None, None, "star", "right"))),
        ),
    ],
)
def test_a_text_says_what_its_words_say(text, statement):
    assert parse(text) == statement


def test_leaving_out_or_doubling_any_word_never_keeps_the_statement():
    """Every word counts, but for the "side" of "on the left side"."""
    for index in range(300):
        rng = stream(0, "train", index, "language")
        statement = true_statement(scene_at(0, "train", index), rng)
        words = write(statement, rng).split()
        for at, word in enumerate(words):
            assert parse(" ".join([*words[: at + 1], word, *words[at + 1 :]])) is None
            if word != "side":
                assert parse(" ".join(words[:at] + words[at + 1 :])) != statement, (words, word)
