import pytest

from capfilt.world.facts import is_true
from capfilt.world.scenes import Background, Group, Scene

GREY = Background(128, 128, 0)
CIRCLES = Group("small", "red", "circle", "left", ((0.2, 0.4), (0.2, 0.6)))
SQUARE = Group("large", "orange", "square", "right", ((0.8, 0.5),))
SCENE = Scene(GREY, (CIRCLES, SQUARE))
STAR = Group("small", "red", "star", "top", ((0.5, 0.2),))
SQUARE = Group("small", "red", "square", "bottom", ((0.5, 0.8),))
STACKED = Scene(GREY, (STAR, SQUARE))


@pytest.mark.parametrize(
    "text",
    [
        "two small red circles to the left of a large orange square",
        "an orange square right of a pair of circles",
        "one big square next to little circles",
        "two red circles beside an orange square",
        "a square and two circles",
        "red circles on the left side and a square on the right",
        "an orange square",
        "circles",
    ],
)
def test_a_description_whose_claims_all_hold_is_true(text):
    assert is_true(text, SCENE)


@pytest.mark.parametrize(
    "text",
    [
        "two small blue circles to the left of a large orange square",  # colour
        "two large red circles",  # size
        "two red triangles",  # shape
        "three red circles",  # count
        "a red circle",
        "squares",
        "two red circles on the right",  # position
        "an orange square at the top",
        "a square in the middle",
        "an orange square left of two red circles",  # relation
        "two red circles above an orange square",
        "an orange circle and two red squares",  # colours changed over
        "two red circles and two red circles",
        "two red circles and a blue star",
    ],
)
def test_one_claim_that_does_not_hold_makes_a_description_false(text):
    assert not is_true(text, SCENE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "square",
        "a orange square",
        "an square",
        "two circle",
        "one squares",
        "two red small circles",
        "two red circles and",
        "two red circles left of",
        "and an orange square",
        "an orange square an orange square",
        "an orange square square",
        "a large big orange square",
        "on the right an orange square",
        "an orange square on the right of",
        "an orange square and two circles and an orange square",
        "an orange square on the right to the right of two circles",
        "a nice orange square",
        "an orange square for sale",
        "IMG_0042.jpg",
        "orange_square_2.jpg",
        "2019-04-12",
        "ein orange Quadrat",
        "Buy an orange square now!",
    ],
)
def test_a_text_that_is_no_description_is_false(text):
    assert not is_true(text, SCENE)


@pytest.mark.parametrize(
    "text",
    [
        "An ORANGE square.",
        "  an orange\n square ! ",
        "<b>an orange square</b>",
        "an&nbsp;orange&nbsp;square",
        '<a href="x.html">an orange square</a><br/>',
    ],
)
def test_markup_case_and_punctuation_make_no_difference(text):
    assert is_true(text, SCENE)


@pytest.mark.parametrize(("count", "word"), [(1, "a"), (2, "two"), (3, "three")])
def test_a_number_claims_exactly_that_many(count, word):
    for there in range(1, 5):
        scene = Scene(GREY, (Group("small", "red", "triangle", "centre", ((0.5, 0.5),) * there),))
        assert is_true(f"{word} {'triangle' if count == 1 else 'triangles'}", scene) == (there == count)


@pytest.mark.parametrize("text", ["a star above a square", "a square under a star", "a star over a square"])
def test_the_group_at_the_top_is_above_the_other(text):
    assert is_true(text, STACKED)


@pytest.mark.parametrize("text", ["a star below a square", "a star next to a square", "a square left of a star"])
def test_one_group_above_another_is_nowhere_else(text):
    assert not is_true(text, STACKED)
