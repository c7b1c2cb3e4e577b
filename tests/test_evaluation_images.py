import pytest
import torch
from annotated import CAPTIONS, config, image_set, png, write_lines, write_set

from capfilt.config import ImageLimits
from capfilt.config.evaluation import EvaluationData
from capfilt.errors import AnnotationError
from capfilt.images import decode, resize


def test_batches_hold_every_image_in_order(tmp_path):
    images = image_set(config(write_set(tmp_path)))
    batches = list(images.batches("read"))
    assert [numbers for numbers, _ in batches] == [[0, 1, 2], [3]]
    pixels = torch.cat([pixels for _, pixels in batches])
    expected = [resize(decode(png(["red", "blue"][i % 2], shade=3 * i), ImageLimits()).pixels, 32) for i in range(4)]
    assert torch.equal(pixels, torch.stack(expected)[:, None])
    assert not images.left_out


def test_what_cannot_be_decoded_is_left_out_and_counted_by_reason(tmp_path):
    write_set(tmp_path)
    (tmp_path / "1.png").write_bytes(b"<html>")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    images = image_set(config(tmp_path))
    assert [numbers for numbers, _ in images.batches("read")] == [[0, 2]]
    assert images.left_out["1.png"] == "not_an_image"
    assert set(images.left_out) == {"1.png", "3.png"}
    assert images.reasons.total() == 2


def test_an_image_that_is_not_there_is_an_error_with_entry_and_remedy(tmp_path):
    (write_set(tmp_path) / "2.png").unlink()
    with pytest.raises(AnnotationError, match=r"captions\.jsonl: entry 3: .*/2\.png is not there; set data\.images"):
        list(image_set(config(tmp_path)).batches("read"))


def test_a_set_without_any_usable_image_is_an_error(tmp_path):
    write_set(tmp_path)
    for number in range(len(CAPTIONS)):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with pytest.raises(AnnotationError, match=r"none of its 4 images .* can be decoded \(\{'not_an_image': 4\}\)"):
        list(image_set(config(tmp_path)).batches("read"))


def clips(folder, entry):
    data = EvaluationData(annotations=str(write_lines(folder / "clips.jsonl", [entry])), images=str(folder))
    return image_set(config(folder, "video", data=data, video={"frames": 2}))


def test_frames_of_a_folder_are_those_of_its_numbers_in_order(tmp_path):
    (tmp_path / "clip").mkdir()
    for number in range(12):  # by their names, 10 and 11 come behind 1
        (tmp_path / "clip" / f"{number}.png").write_bytes(png(shade=4 * number))
    ((_, found),) = clips(tmp_path, {"clip_name": "clip", "caption": "a dog"}).batches("read")
    listed = {"video": "clip", "frames": [f"clip/{number}.png" for number in range(12)], "caption": "a dog"}
    ((_, wanted),) = clips(tmp_path, listed).batches("read")
    assert torch.equal(found, wanted)


def test_a_clip_is_frames_of_its_folder_or_those_that_are_listed(tmp_path):
    (tmp_path / "clip").mkdir()
    for number in range(5):
        (tmp_path / "clip" / f"{number}.png").write_bytes(png(shade=4 * number))
    ((_, of_folder),) = clips(tmp_path, {"clip_name": "clip", "caption": "a dog"}).batches("read")
    listed = {"video": "clip", "frames": ["clip/0.png", "clip/2.png"], "caption": "a dog"}
    ((_, of_list),) = clips(tmp_path, listed).batches("read")
    assert of_folder.shape == (1, 2, 3, 32, 32)
    assert torch.equal(of_folder, of_list)


def test_a_clip_without_frames_is_not_there(tmp_path):
    (tmp_path / "clip").mkdir()
    with pytest.raises(AnnotationError, match=r"entry 1: .*/clip is not there"):
        list(clips(tmp_path, {"clip_name": "clip", "caption": "a dog"}).batches("read"))
