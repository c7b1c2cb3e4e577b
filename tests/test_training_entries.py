import re

import pytest
from tasks import write_images, write_json

from capfilt.config import ImageLimits
from capfilt.errors import AnnotationError
from capfilt.training.entries import image_path, read_entries, read_pixels


def test_an_object_gives_the_list_under_its_key(tmp_path):
    file = write_json(tmp_path / "a.json", {"questions": [{"a": 1}, {"a": 2}], "license": {}})
    assert [entry["a"] for entry, _ in read_entries(file, "questions")] == [1, 2]


def test_lines_give_an_entry_each_even_a_single_one(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}\n')
    (entry, where), *rest = read_entries(str(tmp_path / "a.json"), "questions")
    assert entry == {"a": 1}
    assert where.endswith("a.json: entry 1")
    assert not rest


def test_another_layout_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match=r"a\.json: entry 1 is a int, not an object"):
        read_entries(write_json(tmp_path / "a.json", [1]), "questions")
    with pytest.raises(AnnotationError, match=r"b\.json: is neither a list nor an object with one under questions"):
        read_entries(write_json(tmp_path / "b.json", {"images": {}}), "questions")


def test_a_pattern_names_the_image_of_an_entry():
    assert image_path("coco/{image_id:012d}.jpg", {"image_id": 9}, "here") == "coco/000000000009.jpg"
    with pytest.raises(AnnotationError, match=r"x: entry 3: images: \{id\}\.jpg does not fit .* it has image_id"):
        image_path("{id}.jpg", {"image_id": 9}, "x: entry 3")


@pytest.mark.parametrize("pattern", ["{}.jpg", "{image_id", "{image_id:q}", "{image_id.name}", "{image_id[name]}"])
def test_a_pattern_that_is_none_is_told_as_one_that_names_another_key(pattern):
    with pytest.raises(AnnotationError, match=rf"^x: entry 3: images: {re.escape(pattern)} does not fit"):
        image_path(pattern, {"image_id": 9}, "x: entry 3")


def test_an_image_that_does_not_decode_is_named(tmp_path):
    write_images(tmp_path, "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    assert read_pixels(str(tmp_path / "good.png"), ImageLimits()).shape == (32, 32, 3)
    with pytest.raises(AnnotationError, match=r"bad\.jpg: .*fetch it again, or remove its entries"):
        read_pixels(str(tmp_path / "bad.jpg"), ImageLimits())


def test_an_image_that_is_not_there_is_named_with_the_key_to_mend(tmp_path):
    write_images(tmp_path, "good.png")
    for path in (tmp_path / "none.jpg", tmp_path, tmp_path / "good.png" / "0.jpg"):
        with pytest.raises(AnnotationError, match=rf"^{path}: is not there; set the key images of its annotation file"):
            read_pixels(str(path), ImageLimits())
