import concurrent.futures
import io
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open

from capfilt import images
from capfilt.config import ImageLimits
from capfilt.errors import ImageError
from capfilt.images import decode, resize

LIMITS = ImageLimits()
REASONS = {
    *("not_an_image", "truncated", "too_large", "too_many_pixels"),
    *("bad_shape", "unsupported_mode", "decode_error"),
}


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def photo(width: int = 37, height: int = 23, mode: str = "RGB") -> Image.Image:
    """A picture with every channel and corner different."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 255 // width, rows * 255 // height, (rows + columns) % 256], axis=2)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def outcome(data: bytes, limits: ImageLimits = LIMITS) -> str:
    """Return the reason of a refusal, or the pixels written out."""
    try:
        found = decode(data, limits)
    except ImageError as error:
        return error.reason
    assert (found.pixels.dtype, found.pixels.shape) == (np.uint8, (found.height, found.width, 3))
    return found.pixels.tobytes().hex()


def test_every_awkward_picture_meets_its_expectation(shared):
    folder = shared / "data/badinput/dev"
    for line in (folder / "images.jsonl").read_text().splitlines():
        case = json.loads(line)
        found = outcome((folder / case["file"]).read_bytes())
        assert case["expect"] in ("reject" if found in REASONS else "decode", "either"), (case["file"], found)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_come_back_exactly(form):
    found = decode(encoded(photo(), form), LIMITS)

    assert np.array_equal(found.pixels, np.asarray(photo()))
    assert (found.width, found.height, found.format) == (37, 23, form)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
def test_a_jpeg_has_the_pixels_of_pillow_with_and_without_simplejpeg(monkeypatch, mode, options):
    pytest.importorskip("simplejpeg")
    if mode == "L":
        options = {key: value for key, value in options.items() if key != "subsampling"}
    data = encoded(photo(203, 101, mode), "JPEG", **options)

    fast = decode(data, LIMITS)
    monkeypatch.setattr(images, "simplejpeg", None)
    slow = decode(data, LIMITS)

    assert np.array_equal(fast.pixels, slow.pixels)
    assert np.array_equal(slow.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_photographs_have_the_pixels_of_pillow_with_and_without_simplejpeg(monkeypatch, shared):
    pytest.importorskip("simplejpeg")
    files = sorted((shared / "data/human/dev/images").glob("*.jpg"))[::600]
    fast = [decode(file.read_bytes(), LIMITS).pixels for file in files]
    monkeypatch.setattr(images, "simplejpeg", None)

    assert len(files) > 5
    for file, pixels in zip(files, fast, strict=True):
        assert np.array_equal(decode(file.read_bytes(), LIMITS).pixels, pixels)


def test_the_fast_path_refuses_what_pillow_refuses(monkeypatch):
    pytest.importorskip("simplejpeg")
    data, rng = bytearray(encoded(photo(99, 99), "JPEG")), random.Random(0)

    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] = rng.randrange(256)
        fast = outcome(bytes(damaged))
        with monkeypatch.context() as patch:
            patch.setattr(images, "simplejpeg", None)
            assert outcome(bytes(damaged)) == fast


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_pillow_does(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))

    found = decode(data, LIMITS)

    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert np.array_equal(found.pixels, np.asarray(expected))
    assert (found.width, found.height) == ((23, 37) if orientation > 4 else (37, 23))


def test_an_adobe_cmyk_jpeg_keeps_its_colours():
    data = encoded(photo().convert("CMYK"), "JPEG", quality=100, subsampling=0)

    difference = decode(data, LIMITS).pixels.astype(int) - np.asarray(photo())

    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(form):
    grey = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)

    pixels = decode(encoded(Image.fromarray(grey), form), LIMITS).pixels

    assert pixels[0].tolist() == [[value] * 3 for value in (0, 0, 1, 1, 128, 255)]


def test_pixels_without_a_known_white_are_refused():
    assert outcome(encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF")) == "unsupported_mode"
    assert outcome(encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF")) == "unsupported_mode"


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_what_is_transparent_is_white(form, mode):
    layer = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    layer.putpixel((1, 0), (0, 0, 0, 255))
    options = {"lossless": True} if form == "WEBP" else {}

    pixels = decode(encoded(layer if form != "PNG" else layer.convert(mode), form, **options), LIMITS).pixels

    assert pixels[0].tolist() == [[255] * 3, [0] * 3]


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if form == "WEBP" else {}

    pixels = decode(encoded(frames[0], form, save_all=True, append_images=frames[1:], **options), LIMITS).pixels

    assert (pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_picture_is_refused(form, share):
    data = encoded(photo(200, 200), form)

    assert outcome(data[: int(share * len(data))]) in REASONS


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_bytes": 100}, "too_large"),
        ({"max_pixels": 37 * 23 - 1}, "too_many_pixels"),
        ({"min_side": 24}, "bad_shape"),
        ({"max_aspect": 1.5}, "bad_shape"),
        ({"max_pixels": 37 * 23, "min_side": 23, "max_aspect": 37 / 23}, None),
    ],
)
def test_each_limit_is_kept(limits, expected):
    data = encoded(photo(), "PNG")

    assert outcome(data, ImageLimits(**limits)) == (expected or outcome(data))


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_picture_is_refused(data):
    assert outcome(data) in ("not_an_image", "truncated", "decode_error")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("seed", range(25))
def test_damage_gives_pixels_or_an_image_error_and_nothing_else(form, seed):
    rng = random.Random(seed)
    data = bytearray(encoded(photo(64, 48), form))
    for _ in range(rng.choice([1, 5, 50])):
        data[rng.randrange(len(data) if rng.random() < 0.5 else 64)] = rng.randrange(256)
    limits = ImageLimits(max_pixels=1_000_000)  # damage to a header makes it a bomb

    found = outcome(bytes(data), limits)

    assert found in REASONS or len(found) % 6 == 0


def test_threads_decode_side_by_side():
    files = [encoded(photo(20 + n, 30), form) for n in range(20) for form in ("JPEG", "PNG")]
    one_by_one = [decode(data, LIMITS).pixels.tobytes() for data in files]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert [found.pixels.tobytes() for found in pool.map(lambda data: decode(data, LIMITS), files)] == one_by_one


def test_resize_gives_the_pixels_of_pillow_but_for_rounding(shared):
    path = sorted((shared / "data/human/dev/images").glob("*.jpg"))[0]
    pixels = decode(path.read_bytes(), LIMITS).pixels

    for side in (64, 224, 384):
        square = resize(pixels, side)
        expected = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))
        levels = np.abs(square.permute(1, 2, 0).numpy().astype(int) - expected)
        assert (square.shape, square.dtype) == ((3, side, side), torch.uint8)
        assert levels.max() <= 2
        assert (levels > 0).mean() < 0.02
        assert (levels > 1).mean() < 0.0001


def test_resize_does_not_depend_on_the_number_of_threads():
    pixels, threads = np.asarray(photo(640, 480)).copy(), torch.get_num_threads()
    squares = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        squares.append(resize(pixels, 384))
    torch.set_num_threads(threads)

    assert torch.equal(squares[0], squares[1])
    assert torch.equal(squares[0], squares[2])


def test_preprocessing_agrees_with_the_original(shared):
    """Within one 8-bit level of the original's Pillow resize, normalised by CLIP's mean and deviation."""
    with safe_open(shared / "fixtures/a/tensors.safetensors", "pt") as file:
        pixels, expected = file.get_tensor("in.prep.image_uint8_hwc"), file.get_tensor("out.prep.eval_tensor")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]

    levels = (expected * deviation + mean) * 255

    assert (resize(pixels.numpy(), 64) - levels).abs().max() < 1.01
