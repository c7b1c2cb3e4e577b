"""Random crops, mirror images and RandAugment: within their limits, and a function of their generator alone."""

import numpy as np
import pytest
import torch
from numpy.random import Generator
from PIL import Image

from capfilt.config.data import Augmentation
from capfilt.images import resize
from capfilt.training.augment import GREY, OPERATIONS, Views, apply, crop_box, rand_augment
from capfilt.training.order import DRAWS, chance

PRETRAINING = Augmentation(min_scale=0.2, flip=True, operations=2)


def rng(number: int) -> Generator:
    return chance(0, DRAWS, number)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A smooth image without symmetry, (60, 80, 3)."""
    y, x = np.mgrid[:60, :80] / 80
    return np.stack([255 * x, 255 * y, 120 + 100 * np.sin(5 * x + 3 * y)], axis=2).astype(np.uint8)


class TestViews:
    def test_without_chance_a_view_is_the_image_resized(self, photo):
        views = Views(32, Augmentation())
        kept = views.keep(photo)
        assert torch.equal(kept, resize(photo, 32))
        assert views.draw(kept, rng(0)) is kept

    @pytest.mark.parametrize("settings", [PRETRAINING, Augmentation(min_scale=0.5), Augmentation(operations=2)])
    def test_equal_generators_give_equal_views_and_others_others(self, photo, settings):
        views = Views(32, settings)
        kept = views.keep(photo)
        before = kept.clone()
        found = [views.draw(kept, rng(number)) for number in range(20)]
        assert all(torch.equal(view, views.draw(kept, rng(number))) for number, view in enumerate(found))
        assert {(view.shape, view.dtype, view.is_contiguous()) for view in found} == {((3, 32, 32), torch.uint8, True)}
        assert len({view.numpy().tobytes() for view in found}) >= 8  # RandAugment leaves some as they were
        assert torch.equal(kept, before)

    def test_half_of_the_views_are_mirrored(self, photo):
        views = Views(32, Augmentation(flip=True))
        kept = views.keep(photo)
        mirrored = [torch.equal(views.draw(kept, rng(number)), kept.flip(2)) for number in range(400)]
        assert abs(sum(mirrored) - 200) < 5 * 10
        assert all(m or torch.equal(views.draw(kept, rng(n)), kept) for n, m in enumerate(mirrored))

    def test_a_crop_shows_a_part_of_the_image_only(self, photo):
        """Red grows to the right and green downwards: their spans are the crop's width and height."""
        views = Views(32, Augmentation(min_scale=0.2))
        kept = views.keep(photo)
        for number in range(50):
            top, left, height, width = crop_box(60, 80, 0.2, rng(number))
            expected = resize(np.ascontiguousarray(photo[top : top + height, left : left + width]), 32)
            assert torch.equal(views.draw(kept, rng(number)), expected)


class TestCrop:
    @pytest.mark.parametrize("least", [0.2, 0.5])
    def test_area_and_aspect_are_within_their_limits_and_reach_them(self, least):
        boxes = [crop_box(480, 640, least, rng(number)) for number in range(500)]
        areas = [height * width / (480 * 640) for _, _, height, width in boxes]
        aspects = [width / height for _, _, height, width in boxes]
        assert least * 0.99 < min(areas) < least + 0.05
        assert 0.9 < max(areas) <= 1
        assert 0.745 < min(aspects) < 0.78
        assert 1.28 < max(aspects) < 1.345
        assert all(0 <= t <= 480 - h and 0 <= le <= 640 - w for t, le, h, w in boxes)
        assert len({(t > 0, le > 0) for t, le, _, _ in boxes}) >= 3

    @pytest.mark.parametrize(("height", "width", "box"), [(10, 1000, (0, 493, 10, 13)), (900, 30, (430, 0, 40, 30))])
    def test_an_extreme_image_gives_its_middle(self, height, width, box):
        assert crop_box(height, width, 0.9, rng(0)) == box

    def test_a_crop_smaller_than_the_image_may_touch_any_side(self):
        boxes = [crop_box(8, 8, 0.5, rng(number)) for number in range(200)]
        assert {top for top, _, height, _ in boxes if height == 7} == {0, 1}
        assert {left for _, left, _, width in boxes if width == 7} == {0, 1}

    def test_one_pixel_is_a_crop(self):
        assert crop_box(1, 1, 0.2, rng(3)) == (0, 0, 1, 1)


class TestRandAugment:
    def test_it_draws_all_ten_operations_and_applies_half(self, photo):
        image = resize(photo, 32)
        visible = {"autocontrast", "equalize", "shear_x", "shear_y", "translate_x", "translate_y", "rotate"}
        unchanged = sum(
            torch.equal(rand_augment(image, Augmentation(operations=1), rng(number)), image) for number in range(600)
        )
        # Seven of ten operations change this image at level 5, each in half of the draws.
        assert len(visible) == 7
        assert abs(unchanged - 600 * (1 - 0.7 * 0.5)) < 5 * (600 * 0.65 * 0.35) ** 0.5

    def test_operations_with_a_direction_go_either_way(self, photo):
        image = resize(photo, 32)
        whole = Image.fromarray(image.permute(1, 2, 0).numpy().copy())
        views = [rand_augment(image, Augmentation(operations=1), rng(number)) for number in range(400)]
        drawn = {view.permute(1, 2, 0).numpy().tobytes() for view in views}
        for operation in OPERATIONS:
            for sign in (1, -1):
                assert np.array(apply(operation, whole, 0.5, sign)).tobytes() in drawn

    def test_with_no_chance_nothing_is_applied(self, photo):
        image = resize(photo, 32)
        never = Augmentation(operations=2, chance=0.0)
        assert all(torch.equal(rand_augment(image, never, rng(number)), image) for number in range(50))

    def test_brightness_and_sharpness_do_nothing_at_level_5_as_in_the_original(self, photo):
        image = Image.fromarray(photo)
        for operation in ("identity", "brightness", "sharpness"):
            assert np.array_equal(np.array(apply(operation, image, 0.5, 1)), photo)

    def test_brightness_multiplies(self, photo):
        found = np.array(apply("brightness", Image.fromarray(photo), 1.0, 1)).astype(int)
        assert np.abs(found - np.minimum(255, 1.9 * photo)).max() <= 1

    def test_equalize_and_autocontrast_use_the_whole_range(self):
        grey = np.repeat(np.linspace(100, 150, 64).astype(np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
        for operation in ("equalize", "autocontrast"):
            found = np.array(apply(operation, Image.fromarray(grey), 0.5, 1))
            assert (found.min(), found.max()) == (0, 255)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_moves_are_five_pixels_at_level_5_with_a_grey_ground(self, photo, sign):
        right = np.array(apply("translate_x", Image.fromarray(photo), 0.5, sign))
        down = np.array(apply("translate_y", Image.fromarray(photo), 0.5, sign))
        moved, ground = (slice(5, None), slice(5)) if sign > 0 else (slice(None, -5), slice(-5, None))
        stayed = slice(None, -5) if sign > 0 else slice(5, None)
        assert np.array_equal(right[:, moved], photo[:, stayed])
        assert np.array_equal(down[moved], photo[stayed])
        assert (right[:, ground] == GREY).all()
        assert (down[ground] == GREY).all()

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_shear_keeps_the_first_line_and_moves_the_others_by_their_distance(self, sign):
        """At level 5 by 0.15 a line; a bright column becomes a slanted one."""
        pixels = np.zeros((41, 41, 3), np.uint8)
        pixels[:, 20] = 255
        sheared = np.array(apply("shear_x", Image.fromarray(pixels), 0.5, sign))[..., 0]
        for line in (0, 20, 40):
            assert abs(int(sheared[line, 10:31].argmax()) + 10 - (20 + sign * 0.15 * (line + 0.5))) <= 1
        turned = np.array(apply("shear_y", Image.fromarray(pixels.transpose(1, 0, 2).copy()), 0.5, sign))[..., 0]
        assert np.array_equal(turned.T, sheared)

    def test_a_turn_is_fifteen_degrees_about_the_middle(self):
        pixels = np.zeros((101, 101, 3), np.uint8)
        pixels[48:53, 88:93] = 255  # 40 pixels to the right of the middle
        found = np.array(apply("rotate", Image.fromarray(pixels), 0.5, 1))[20:80, 20:, 0].astype(float)
        y, x = np.unravel_index(found.argmax(), found.shape)
        assert abs(x + 20 - (50 + 40 * np.cos(np.pi / 12))) <= 3
        assert abs(y + 20 - (50 - 40 * np.sin(np.pi / 12))) <= 3

    def test_every_operation_keeps_size_and_type(self, photo):
        for operation in OPERATIONS:
            found = np.array(apply(operation, Image.fromarray(photo), 0.9, -1))
            assert (found.shape, found.dtype) == (photo.shape, np.uint8)
