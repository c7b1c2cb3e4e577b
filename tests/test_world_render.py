import io

import numpy as np
import pytest
from PIL import Image

from capfilt.world.render import RGB, encode, render
from capfilt.world.scenes import COLOURS, SHAPES, Background, Group, Scene, scene_at

GREY = Background(128, 128, 1)


def one(shape="square", colour="red", size="large", centre=(0.5, 0.5)) -> Scene:
    return Scene(GREY, (Group(size, colour, shape, "centre", (centre,)),))


def drawn(scene: Scene, side: int = 64) -> np.ndarray:
    """Return where an object covers the background, (side, side)."""
    return np.abs(render(scene, side).astype(int) - render(Scene(GREY, ()), side)).max(axis=2) > 20


def test_a_scene_always_gives_the_same_image():
    np.testing.assert_array_equal(render(scene_at(0, "train", 3)), render(scene_at(0, "train", 3)))
    assert (render(scene_at(0, "train", 3)) != render(scene_at(0, "train", 4))).any()


@pytest.mark.parametrize("side", [32, 64, 96, 224])
def test_an_object_has_its_place_and_size_at_every_resolution(side):
    ys, xs = drawn(one(shape="circle", centre=(0.3, 0.7)), side).nonzero()
    assert render(one(), side).shape == (side, side, 3)
    assert (xs.mean() + 0.5) / side == pytest.approx(0.3, abs=0.01)
    assert (ys.mean() + 0.5) / side == pytest.approx(0.7, abs=0.01)
    assert np.ptp(xs) / side == pytest.approx(17 / 64, abs=2 / side)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_middle_of_an_object_has_its_colour(colour):
    middle = render(one(colour=colour))[32, 32].astype(int)
    assert np.abs(middle - RGB[colour]).max() <= 1


def test_a_large_object_covers_far_more_than_a_small_one():
    for shape in SHAPES:
        assert drawn(one(shape)).sum() > 2 * drawn(one(shape, size="small")).sum()


def test_no_two_shapes_look_alike():
    masks = [drawn(one(shape)) for shape in SHAPES]
    for first in range(len(SHAPES)):
        for second in range(first):
            assert (masks[first] ^ masks[second]).sum() >= 20, (SHAPES[first], SHAPES[second])


@pytest.mark.parametrize(("x", "y"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_an_object_over_the_edge_is_cut_by_it(x, y):
    whole = drawn(one("triangle"))
    cut = drawn(one("triangle", centre=(x, y)))
    corner = np.s_[32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
    expected = np.roll(whole, (32, 32), axis=(0, 1))[corner]
    # On another part of the noise, a pixel of the rim may fall on the other side of the threshold.
    assert (cut[corner] ^ expected).sum() <= 2 < expected.sum()
    assert cut.sum() == cut[corner].sum()


@pytest.mark.parametrize("colour", COLOURS)
def test_the_jpeg_keeps_the_colours_of_a_small_object_up_to_its_edges(colour):
    """With colour at half resolution the mean error would be over 11 grey levels."""
    pixels = render(one("triangle", colour, size="small"))
    decoded = np.asarray(Image.open(io.BytesIO(encode(pixels))))
    error = np.abs(decoded.astype(int) - pixels)[27:37, 27:37]
    assert error.mean() < 8
