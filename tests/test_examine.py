import hashlib
import io

import pytest
from PIL import Image

from capfilt.config import ImageLimits
from capfilt.examine import examine
from capfilt.records import Sample

LIMITS = ImageLimits()


def png(width: int = 40, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, "PNG")
    return file.getvalue()


def test_a_good_sample_is_told_with_the_size_of_its_whole_image():
    data = png()
    record, image = examine(Sample(7, "k", data, "a red sign", "http://x", "{}"), LIMITS)

    assert (record.position, record.key, record.url, record.metadata) == (7, "k", "http://x", "{}")
    assert record.image_sha256 == hashlib.sha256(data).hexdigest()
    assert (record.status, record.text_status, record.error) == ("ok", "ok", "")
    assert (record.width, record.height, record.format) == (40, 30, "PNG")
    assert image is not None
    assert image.pixels.shape == (30, 40, 3)


def test_what_reading_found_stands_and_the_image_is_not_looked_at():
    record, image = examine(Sample(0, "k", png(), "x", status="cut", error="cut at 9 bytes"), LIMITS)

    assert (record.status, record.error, record.width, record.format, image) == (
        "cut",
        "cut at 9 bytes",
        None,
        "",
        None,
    )
    assert record.image_sha256


def test_a_sample_without_an_image_has_no_hash_of_one():
    assert examine(Sample(0, "k", b"", "x", status="empty_image"), LIMITS)[0].image_sha256 == ""


def test_a_refused_image_is_told_with_the_reason_and_what_was_found():
    record, image = examine(Sample(0, "k", png(), "x"), ImageLimits(max_pixels=1199))

    assert (record.status, image) == ("too_many_pixels", None)
    assert "40 x 30" in record.error
    assert (record.width, record.height, record.format) == (None, None, "")


@pytest.mark.parametrize(
    ("text", "read_as", "told"),
    [("<br>\u200b", "ok", "empty"), ("", "missing", "missing"), ("a dog", "cut", "cut"), ("<b>", "cut", "empty")],
)
def test_a_text_of_which_a_reader_would_see_nothing_is_empty(text, read_as, told):
    assert examine(Sample(0, "k", png(), text, text_status=read_as), LIMITS)[0].text_status == told
