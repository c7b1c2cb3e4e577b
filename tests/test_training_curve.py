"""The picture of a run's losses."""

from itertools import chain
from xml.etree import ElementTree

from capfilt.training.curve import POINTS, draw

SVG = "{http://www.w3.org/2000/svg}"


def test_lines_begin_at_the_left_and_the_highest_loss_touches_the_top():
    root = ElementTree.fromstring(draw({"lm": [(0, 4.0), (50, 2.0), (100, 0.0)]}, "x"))
    (line,) = root.iter(f"{SVG}polyline")
    assert line.get("points") == "56.0,32.0 340.0,196.0 624.0,360.0"


def test_axes_and_lines_tell_what_they_are():
    root = ElementTree.fromstring(draw({"lm": [(0, 4.0), (500, 2.0), (1000, 0.5)], "itm": [(0, 1.0)]}, "x"))
    ticks = [("0", "0"), ("0.8", "200"), ("1.6", "400"), ("2.4", "600"), ("3.2", "800"), ("4", "1,000")]
    found = [(text.text, float(text.get("x")), float(text.get("y"))) for text in root.iter(f"{SVG}text")]
    assert [text for text, _, _ in found] == ["x", *chain(*ticks), "step", "lm 0.5", "itm 1"]
    assert found[1][1:] == (50.0, 364.0)  # left of the axis, on the height of no loss
    assert found[11][1:] == (50.0, 36.0)
    assert found[12][1:] == (624.0, 378.0)  # under the last step
    assert found[14][1] == found[15][1] == 632.0  # right of the lines
    assert found[14][2] < found[15][2]


def test_the_longest_run_of_names_has_a_line_each():
    root = ElementTree.fromstring(draw({f"loss {number}": [(0, 1.0), (9, 0.5)] for number in range(9)}, "x"))
    assert len(list(root.iter(f"{SVG}polyline"))) == 9


def test_a_loss_below_nothing_stays_on_the_axes():
    root = ElementTree.fromstring(draw({"lm": [(0, 1.0), (10, -1.0)]}, "x"))
    (line,) = root.iter(f"{SVG}polyline")
    assert line.get("points") == "56.0,32.0 624.0,360.0"


def test_a_long_run_is_drawn_with_few_points_at_the_mean_of_its_neighbours():
    root = ElementTree.fromstring(draw({"lm": [(step, step % 2 * 2.0) for step in range(8000)]}, "x"))
    (line,) = root.iter(f"{SVG}polyline")
    points = [point.split(",") for point in line.get("points").split()]
    assert len(points) == POINTS
    assert {y for _, y in points} == {"196.0"}


def test_a_name_cannot_break_the_picture():
    assert ElementTree.fromstring(draw({"a<b": [(0, 1.0)]}, "x & y")) is not None


def test_a_run_without_lines_has_empty_axes():
    assert "polyline" not in draw({}, "x")
