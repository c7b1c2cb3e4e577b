"""The sizes of models, as they stand in a checkpoint's config.json."""

import pytest
from pydantic import ValidationError

from capfilt.config.sizes import MEDConfig, TextConfig, VisionConfig
from capfilt.errors import ConfigError


def test_a_tower_has_a_token_for_each_patch_and_the_class_token():
    assert VisionConfig().tokens == 1 + 24 * 24


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 30}, "image_size 30 is not a multiple of patch_size 16"),
        ({"image_size": 8192}, "image_size 8192 makes 262,144 patches of 16 pixels, and 65,536 are the most"),
        ({"width": 770}, "width 770 cannot be split into 12 heads"),
        ({"image_size": 48, "patch_size": 12, "stem": "conv"}, "patch_size 12 is not a power of 2"),
    ],
)
def test_a_tower_that_cannot_be_made_is_refused(sizes, message):
    with pytest.raises(ValidationError, match=message):
        VisionConfig(**sizes)


def test_a_stack_has_whole_heads():
    with pytest.raises(ValidationError, match="width 770 cannot be split into 12 heads"):
        TextConfig(width=770)


def test_towers_are_alike_whatever_they_drop_in_training():
    assert VisionConfig(drop_path=0.1).alike(VisionConfig())
    assert not VisionConfig(image_size=224).alike(VisionConfig())


def test_texts_longer_than_the_model_takes_are_refused_by_their_key():
    MEDConfig().require_room("data.max_tokens", 512)
    with pytest.raises(ConfigError, match=r"data\.max_tokens: 513, the model takes 512; lower it"):
        MEDConfig().require_room("data.max_tokens", 513)
