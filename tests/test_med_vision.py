"""The vision tower and what stands around it."""

import pytest
import torch
from models import lively_checkpoint

from capfilt.config.sizes import VisionConfig
from capfilt.med.model import MED
from capfilt.med.vision import MEAN, STD, VisionTower, normalise, resize_positions


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> MED:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path_factory.mktemp("med")).model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_there_is_a_token_for_the_class_and_one_for_each_patch_all_normed(model, images):
    tokens = model.encode_image(images)
    assert tokens.shape == (3, 1 + 4 * 4, 32)
    torch.testing.assert_close(tokens.mean(2), torch.zeros(3, 17), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.var(2, correction=0), torch.ones(3, 17), rtol=0, atol=1e-3)


@torch.inference_mode()
def test_an_image_does_not_depend_on_its_neighbours(model, images):
    whole = model.encode_image(images)
    for i in range(3):
        torch.testing.assert_close(model.encode_image(images[i : i + 1]), whole[i : i + 1], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_every_patch_reaches_every_token(model, images):
    changed = images.clone()
    changed[:, :, 24:, 24:] += 1.0  # the last patch
    moved = (model.encode_image(images) - model.encode_image(changed)).abs().amax(2)
    assert moved.min() > 1e-3


@torch.inference_mode()
def test_features_have_length_one_and_come_from_the_class_token(model, images):
    tokens = model.encode_image(images)
    features = model.image_features(tokens)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3))
    assert torch.equal(features, model.image_features(tokens[:, :1]))


def test_stochastic_depth_grows_from_block_to_block_up_to_its_rate():
    tower = VisionTower(VisionConfig(image_size=16, patch_size=8, width=16, depth=3, heads=2, drop_path=0.5))
    halves = [(block.drop_path1, block.drop_path2) for block in tower.vit.blocks]
    assert [[getattr(half, "drop_prob", 0.0) for half in both] for both in halves] == [[0, 0], [0.25, 0.25], [0.5, 0.5]]


def test_pixels_are_scaled_and_normalised_by_channel():
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(3, 3).T.reshape(1, 3, 3, 1)
    found = normalise(pixels)
    for channel, value in enumerate((0, 128, 255)):
        expected = (value / 255 - MEAN[channel]) / STD[channel]
        assert found[0, channel].flatten().tolist() == pytest.approx([expected] * 3, abs=1e-6)


def test_normalised_pixels_have_the_type_asked_for():
    pixels = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    assert normalise(pixels).dtype == torch.float32
    assert normalise(pixels, torch.bfloat16).dtype == torch.bfloat16


class TestPositions:
    def test_the_same_size_is_left_alone(self):
        table = torch.randn(1, 17, 8)
        assert resize_positions(table, 17) is table

    @pytest.mark.parametrize("side", [2, 3, 8])
    def test_the_class_keeps_its_position_and_the_grid_its_mean_and_direction(self, side):
        """A table that rises with the column must still do so, and not with the row."""
        row, column = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        grid = torch.stack([row, column], dim=-1).reshape(1, 16, 2)
        table = torch.cat([torch.full((1, 1, 2), 9.0), grid], dim=1)

        found = resize_positions(table, 1 + side * side)

        assert found[0, 0].tolist() == [9.0, 9.0]
        patches = found[0, 1:].view(side, side, 2)
        torch.testing.assert_close(patches[..., 0], patches[..., 1].T)
        assert (patches[:, 1:, 1] > patches[:, :-1, 1]).all()
        torch.testing.assert_close(patches[:, 0, 1], patches[:1, 0, 1].expand(side))
        assert patches.mean().item() == pytest.approx(1.5, abs=1e-4)


def test_the_seed_alone_decides_the_first_weights(tmp_path):
    torch.manual_seed(1)
    first = lively_checkpoint(tmp_path, seed=5).model.state_dict()
    torch.manual_seed(2)
    again, other = (lively_checkpoint(tmp_path, seed=seed).model.state_dict() for seed in (5, 6))
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    drawn = {name for name in first if not torch.equal(first[name], other[name])}
    left = {name for name in first if name not in drawn and "norm" not in name and not name.endswith("bias")}
    assert left == {"temperature"}


@pytest.fixture
def conv_tower() -> VisionTower:
    torch.manual_seed(0)
    sizes = VisionConfig(image_size=32, patch_size=8, width=32, depth=1, heads=2, stem="conv")
    return VisionTower(sizes).eval()


@torch.inference_mode()
def test_a_convolutional_stem_gives_a_token_for_each_patch(conv_tower):
    assert conv_tower(torch.randn(2, 3, 32, 32)).shape == (2, 1 + 16, 32)


@torch.inference_mode()
def test_the_tokens_of_an_image_do_not_depend_on_its_batch(conv_tower):
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(conv_tower(images)[1:2], conv_tower(images[1:2]), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_the_class_token_sees_the_strongest_response_at_any_place(conv_tower):
    """Without blocks the class token would be the same for every image; the maximum makes it the image's own."""
    conv_tower.vit.blocks = torch.nn.Sequential()
    empty, spot = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    spot[:, :, 5:9, 20:24] = 3.0
    assert (conv_tower(empty)[:, 0] - conv_tower(spot)[:, 0]).abs().max() > 0.1


def test_a_convolutional_stem_needs_patches_of_a_power_of_two():
    with pytest.raises(ValueError, match="patch_size 12 is not a power of 2"):
        VisionConfig(image_size=48, patch_size=12, stem="conv")
