"""Pictures of a page are small, of any image, and no more than the page may hold."""

import base64
import io

import pytest
from ledgers import image
from PIL import Image

from capfilt.config import ImageLimits
from capfilt.report.thumbnails import LEFT_OUT, SIDE, make_picture, make_pictures

LIMITS = ImageLimits()


def drawn(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((1280, 640), (SIDE, SIDE // 2)),
        ((300, 1200), (SIDE // 4, SIDE)),
        ((40, 30), (40, 30)),
        ((320, 320), (320, 320)),
    ],
)
def test_the_longer_side_is_cut_down_and_a_small_image_keeps_its_size(size, shown):
    picture = make_picture(drawn(*size), LIMITS)

    assert (picture.width, picture.height) == shown
    kind, _, data = picture.data.partition(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == shown


def test_an_image_that_cannot_be_shown_says_why():
    strict = ImageLimits(max_pixels=100)

    assert make_picture(drawn(40, 30), strict).missing == "is 40 x 30, max_pixels is 100"
    assert make_picture(b"no image", LIMITS).missing
    assert make_pictures({("00000", 0): "the file is gone"}, LIMITS, 1000)["00000", 0].missing == "the file is gone"


def test_pictures_are_left_out_from_where_the_page_is_full():
    images = {("00000", n): image(n) for n in range(6)}
    sizes = [len(picture.data) for picture in make_pictures(images, LIMITS, 10**6).values()]

    found = list(make_pictures(images, LIMITS, sum(sizes[:3])).values())

    assert [len(picture.data) for picture in found] == [*sizes[:3], 0, 0, 0]
    assert [picture.missing for picture in found] == ["", "", "", LEFT_OUT, LEFT_OUT, LEFT_OUT]
