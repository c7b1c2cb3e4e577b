"""The picture of a run's losses."""

from xml.etree import ElementTree

from capfilt.training.curve import POINTS, draw

SVG = "{http://www.w3.org/2000/svg}"


def test_lines_begin_at_the_left_and_the_highest_loss_touches_the_top():
    root = ElementTree.fromstring(draw({"lm": [(0, 4.0), (50, 2.0), (100, 0.0)]}, "x"))
    (line,) = root.iter(f"{SVG}polyline")
    assert line.get("points") == "56.0,32.0 340.0,196.0 624.0,360.0"


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
