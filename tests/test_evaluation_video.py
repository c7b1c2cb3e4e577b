import torch
from models import lively_checkpoint

from capfilt.evaluation.video import encode, evenly_spaced, in_time


def test_frames_are_the_first_of_equal_parts():
    assert evenly_spaced(list("abcdefgh"), 4) == ["a", "c", "e", "g"]
    assert evenly_spaced(list("abcde"), 3) == ["a", "b", "d"]


def test_a_short_clip_gives_frames_twice():
    assert evenly_spaced(["a", "b"], 4) == ["a", "a", "b", "b"]


def test_frames_come_in_the_order_of_their_numbers_padded_or_not():
    assert in_time(["10.jpg", "2.jpg", "1.jpg"]) == ["1.jpg", "2.jpg", "10.jpg"]
    assert in_time(["shot2_10.png", "shot10_1.png", "shot2_9.png"]) == ["shot2_9.png", "shot2_10.png", "shot10_1.png"]
    assert in_time(["cover.png", "002.png", "010.png"]) == ["002.png", "010.png", "cover.png"]


@torch.inference_mode()
def test_a_clip_of_one_frame_is_its_image(tmp_path):
    model = lively_checkpoint(tmp_path).model
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens, features = encode(model, images[:, None])
    torch.testing.assert_close(tokens, model.encode_image(images))
    torch.testing.assert_close(features, model.image_features(tokens))


@torch.inference_mode()
def test_projections_are_averaged_before_they_are_brought_to_length_1(tmp_path):
    model = lively_checkpoint(tmp_path).model
    frames = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens, features = encode(model, frames[None])
    each = model.encode_image(frames)
    assert torch.equal(tokens[0], torch.cat([each[0], each[1]]))
    mean = (model.vision_proj(each[0, 0]) + model.vision_proj(each[1, 0])) / 2
    torch.testing.assert_close(features[0], mean / mean.norm())
