"""The official accuracy of VQAv2, on cases worked out by hand from its definition and its released code."""

import pytest

from capfilt.evaluation.vqa_accuracy import CONTRACTIONS, answer_accuracy, normal_form, strip_punctuation


@pytest.mark.parametrize(("agreeing", "accuracy"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_three_others_who_agree_make_an_answer_right(agreeing, accuracy):
    people = ["cat"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
    assert answer_accuracy("cat", people) == pytest.approx(accuracy)


def test_people_who_all_agree_are_taken_at_their_word():
    """The released code tidies people's answers only where they differ."""
    assert answer_accuracy("yes!", ["yes"] * 10) == 1.0
    assert answer_accuracy("t-shirt", ["t-shirt"] * 10) == 0.0
    assert answer_accuracy("t-shirt", ["t-shirt"] * 9 + ["shirt"]) == 1.0


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("The Two Dogs", "2 dogs"),
        ("none", "0"),
        ("a an the", ""),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),
        ("twas", "'twas"),
        ("on\tthe\nroad ", "on road"),
        ("1,000", "1000"),
        ("red,white", "red white"),
        ("red, white", "red white"),
        ("3.5 meters.", "3.5 meters"),
        ("somebody'd", "somebodyd"),
        ("shes", "shes"),
    ],
)
def test_the_normal_form(answer, form):
    assert normal_form(answer) == form


def test_a_mark_goes_beside_a_blank_and_parts_words_elsewhere():
    assert strip_punctuation("a/b") == "a b"
    assert strip_punctuation("a/ b/c") == "a bc"


def test_a_contraction_gets_each_of_its_apostrophes_back():
    assert {key for key, value in CONTRACTIONS.items() if value == "y'all'd've"} == {
        "yall'd've",
        "y'alld've",
        "y'all'dve",
    }
