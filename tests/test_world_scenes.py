from collections import Counter
from itertools import combinations

import pytest

from capfilt.errors import CapfiltError
from capfilt.world.scenes import DIAMETER, Scene, scene_at, scene_from_metadata

SCENES = [scene_at(0, "train", index) for index in range(1000)]


def objects(scene: Scene) -> list[tuple[float, float, float]]:
    return [(x, y, DIAMETER[group.size]) for group in scene.groups for x, y in group.centres]


def test_a_scene_depends_on_seed_split_and_index_alone():
    assert scene_at(0, "train", 7) == SCENES[7]
    assert len({SCENES[7], scene_at(1, "train", 7), scene_at(0, "test", 7), scene_at(0, "train", 8)}) == 4


def test_objects_never_touch_each_other():
    for scene in SCENES:
        for (x1, y1, d1), (x2, y2, d2) in combinations(objects(scene), 2):
            assert max(abs(x1 - x2), abs(y1 - y2)) >= (d1 + d2) / 2 + 1.9 / 64


def test_every_object_lies_inside_the_image():
    for scene in SCENES:
        for x, y, diameter in objects(scene):
            assert diameter / 2 <= min(x, y) <= max(x, y) <= 1 - diameter / 2


def test_a_group_lies_where_its_region_says():
    """The middle of a group is clearly off to one side, or clearly on no side."""
    for scene in SCENES:
        for group in scene.groups:
            x, y = (sum(axis) / group.count - 0.5 for axis in zip(*group.centres, strict=True))
            along = {"left": -x, "right": x, "top": -y, "bottom": y, "centre": 0.2}[group.region]
            across = max(abs(x), abs(y)) if group.region == "centre" else min(abs(x), abs(y))
            assert along - across > 3 / 64


def test_two_groups_are_opposite_and_of_other_shapes():
    pairs = [scene.groups for scene in SCENES if len(scene.groups) == 2]
    assert {(first.region, second.region) for first, second in pairs} == {("left", "right"), ("top", "bottom")}
    assert all(first.shape != second.shape for first, second in pairs)
    assert 550 < len(pairs) < 650


@pytest.mark.parametrize(("attribute", "kinds"), [("colour", 8), ("shape", 4), ("size", 2), ("count", 3)])
def test_every_value_of_an_attribute_is_about_as_frequent(attribute, kinds):
    counts = Counter(getattr(group, attribute) for scene in SCENES for group in scene.groups)
    mean = counts.total() / kinds
    assert len(counts) == kinds
    assert all(abs(count - mean) < 4 * mean**0.5 for count in counts.values())


@pytest.mark.parametrize("metadata", ["", "no json", "{}", '{"scene": 3}', '{"scene": {"groups": [{}]}}'])
def test_metadata_without_a_scene_is_refused(metadata):
    with pytest.raises(CapfiltError, match="no scene in the metadata"):
        scene_from_metadata(metadata)
