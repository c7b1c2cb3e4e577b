import concurrent.futures
import errno
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open

from capfilt import images
from capfilt.config import ImageLimits
from capfilt.errors import ImageError
from capfilt.images import decode, resize
from capfilt.shards.grouping import IMAGE_SUFFIXES

LIMITS = ImageLimits()
STEREO = {"save_all": True, "append_images": [Image.new("RGB", (160, 100))]}  # makes an MPO, which holds two pictures
SHORT_OF_MEMORY = """
import resource, sys
from capfilt.config import ImageLimits
from capfilt.images import decode

limits = ImageLimits()
decode(sys.stdin.buffer.read(int(sys.argv[1])), limits)  # loads all that decoding takes
data = sys.stdin.buffer.read()
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (32 << 20), resource.RLIM_INFINITY))
try:
    decode(data, limits)
except OSError as error:
    sys.exit(error.errno)
"""
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


def outcome(data: bytes, limits: ImageLimits = LIMITS) -> str | bytes:
    """Return the reason of a refusal, a str, or the pixels, as bytes."""
    try:
        found = decode(data, limits)
    except ImageError as error:
        return error.reason
    assert (found.pixels.dtype, found.pixels.shape) == (np.uint8, (found.height, found.width, 3))
    return found.pixels.tobytes()


def fate(data: bytes, least_side: float | None) -> tuple[object, ...] | str:
    """Return the reason of a refusal, or what is told of the whole image."""
    try:
        found = decode(data, LIMITS, least_side)
    except ImageError as error:
        return error.reason
    return found.width, found.height, found.format


def mosaic(shared: Path, columns: int = 4, rows: int = 3) -> Image.Image:
    """Photographs of 192 pixels side by side: a large picture that has as much detail as they have."""
    whole = Image.new("RGB", (192 * columns, 192 * rows))
    files = sorted((shared / "data/human/dev/images").glob("*.jpg"))[:: 6000 // (columns * rows)]
    for number, file in enumerate(files[: columns * rows]):
        whole.paste(Image.open(file), (192 * (number % columns), 192 * (number // columns)))
    return whole


def test_every_awkward_picture_meets_its_expectation(shared):
    folder = shared / "data/badinput/dev"
    for line in (folder / "images.jsonl").read_text().splitlines():
        case = json.loads(line)
        found = outcome((folder / case["file"]).read_bytes())
        assert case["expect"] in ("reject" if found in REASONS else "decode", "either"), (case["file"], found)


def test_every_awkward_picture_meets_the_same_fate_when_it_may_be_shrunk(shared):
    folder = shared / "data/badinput/dev"
    for line in (folder / "images.jsonl").read_text().splitlines():
        data = (folder / json.loads(line)["file"]).read_bytes()
        assert fate(data, 1) == fate(data, None)


@pytest.mark.parametrize("form", ["PNG", "BMP", "DIB", "TIFF", "PPM", "JPEG2000"])
def test_lossless_files_come_back_exactly(form):
    found = decode(encoded(photo(), form), LIMITS)

    assert np.array_equal(found.pixels, np.asarray(photo()))
    assert (found.width, found.height, found.format) == (37, 23, form)


def test_files_of_what_is_decoded_are_images_by_their_suffix_and_documents_are_not():
    suffixes = {form: set() for form in Image.registered_extensions().values()}
    for suffix, form in Image.registered_extensions().items():
        suffixes[form].add(suffix.removeprefix("."))

    assert set().union(*(suffixes.get(form, ()) for form in images._FORMATS)) <= set(IMAGE_SUFFIXES)
    assert set().union(*(suffixes[form] for form in ("PDF", "EPS", "WMF"))).isdisjoint(IMAGE_SUFFIXES)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
def test_a_jpeg_has_the_pixels_of_pillow_with_and_without_simplejpeg(monkeypatch, mode, options):
    pytest.importorskip("simplejpeg", reason="the extra fast is not installed")
    if mode == "L":
        options = {key: value for key, value in options.items() if key != "subsampling"}
    data = encoded(photo(203, 101, mode), "JPEG", **options)

    fast = decode(data, LIMITS)
    monkeypatch.setattr(images, "simplejpeg", None)
    slow = decode(data, LIMITS)

    assert np.array_equal(fast.pixels, slow.pixels)
    assert np.array_equal(slow.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_photographs_have_the_pixels_of_pillow_with_and_without_simplejpeg(monkeypatch, shared):
    pytest.importorskip("simplejpeg", reason="the extra fast is not installed")
    files = sorted((shared / "data/human/dev/images").glob("*.jpg"))[::600]
    fast = [decode(file.read_bytes(), LIMITS).pixels for file in files]
    monkeypatch.setattr(images, "simplejpeg", None)

    assert len(files) > 5
    for file, pixels in zip(files, fast, strict=True):
        assert np.array_equal(decode(file.read_bytes(), LIMITS).pixels, pixels)


def test_the_fast_path_refuses_what_pillow_refuses(monkeypatch):
    pytest.importorskip("simplejpeg", reason="the extra fast is not installed")
    data, rng = bytearray(encoded(photo(99, 99), "JPEG")), random.Random(0)

    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] = rng.randrange(256)
        fast = outcome(bytes(damaged))
        with monkeypatch.context() as patch:
            patch.setattr(images, "simplejpeg", None)
            assert outcome(bytes(damaged)) == fast


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
@pytest.mark.parametrize("least_side", [100, 50, 7])
def test_a_shrunk_jpeg_has_the_pixels_of_pillow_with_and_without_simplejpeg(monkeypatch, mode, options, least_side):
    pytest.importorskip("simplejpeg", reason="the extra fast is not installed")
    if mode == "L":
        options = {key: value for key, value in options.items() if key != "subsampling"}
    data = encoded(photo(411, 203, mode), "JPEG", **options)

    fast = decode(data, LIMITS, least_side)
    monkeypatch.setattr(images, "simplejpeg", None)
    slow = decode(data, LIMITS, least_side)

    with Image.open(io.BytesIO(data)) as image:
        image.draft(None, (205, 101) if least_side == 100 else (102, 50))
        assert np.array_equal(slow.pixels, np.asarray(image.convert("RGB")))
    assert np.array_equal(fast.pixels, slow.pixels)


@pytest.mark.parametrize(
    ("least_side", "size"),
    [(None, (411, 203)), (101.5, (411, 203)), (101, (206, 102)), (51, (206, 102)), (50, (103, 51)), (1, (103, 51))],
)
def test_a_jpeg_is_shrunk_as_far_as_its_sides_allow_and_told_as_it_was(least_side, size):
    found = decode(encoded(photo(411, 203), "JPEG"), LIMITS, least_side)

    assert found.pixels.shape == (size[1], size[0], 3)
    assert (found.width, found.height) == (411, 203)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 5), (7, 7), (8, 7), (8, 8), (9, 12), (15, 40)])
def test_small_jpegs_are_the_same_with_and_without_simplejpeg(monkeypatch, size):
    pytest.importorskip("simplejpeg", reason="the extra fast is not installed")
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")

    fast = decode(data, LIMITS, 1)
    monkeypatch.setattr(images, "simplejpeg", None)

    assert np.array_equal(fast.pixels, decode(data, LIMITS, 1).pixels)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF"])
def test_only_jpegs_are_shrunk(form):
    data = encoded(photo(), form)

    assert np.array_equal(decode(data, LIMITS, 1).pixels, decode(data, LIMITS).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_shrunk_picture_is_upright_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation

    found = decode(encoded(photo(160, 99), "JPEG", quality=95, exif=exif), LIMITS, 40)

    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(photo(160, 99), "PNG", exif=exif))))
    difference = found.pixels.astype(int) - np.asarray(expected.resize(found.pixels.shape[1::-1], Image.Resampling.BOX))
    assert (found.width, found.height) == expected.size
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_cmyk_and_stereo_jpegs_keep_their_colours_when_they_are_shrunk(mode):
    picture = photo(160, 100).convert(mode)
    data = encoded(picture, "JPEG" if mode == "CMYK" else "MPO", quality=100, **(STEREO if mode == "RGB" else {}))

    found = decode(data, LIMITS, 50)

    expected = np.asarray(photo(160, 100).resize((80, 50), Image.Resampling.BOX))
    assert found.pixels.shape == (50, 80, 3)
    assert np.abs(found.pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(("side", "sides"), [(144, (288, 384)), (72, (144, 192))])
def test_shrinking_to_twice_the_side_changes_a_photograph_by_less_than_a_level_on_average(shared, side, sides):
    """2 is the default of images.jpeg_margin, and no pixel to spare is the worst case of it."""
    data = encoded(mosaic(shared), "JPEG", quality=90)

    shrunk, whole = decode(data, LIMITS, 2 * side), decode(data, LIMITS)

    levels = (resize(shrunk.pixels, side).int() - resize(whole.pixels, side).int()).abs().float()
    assert (shrunk.pixels.shape[:2], whole.pixels.shape[:2]) == (sides, (576, 768))
    assert 0 < levels.mean() < 1
    assert levels.quantile(0.99) <= 4


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_a_turned_picture_of_one_pixel_can_be_resized(size, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation

    found = decode(encoded(photo(*size), "JPEG", exif=exif), LIMITS)

    assert resize(found.pixels, 8).shape == (3, 8, 8)


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


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_damaged_jpeg_meets_the_same_fate_whole_and_shrunk(monkeypatch, fast, options):
    if not fast:
        monkeypatch.setattr(images, "simplejpeg", None)
    data, rng = encoded(photo(160, 120), "JPEG", **options), random.Random(0)
    cut = [data[: len(data) - missing] for missing in (1, 2, 3, 10, 100, len(data) // 2)]
    changed = [bytearray(data) for _ in range(100)]
    for damaged in changed:
        damaged[rng.randrange(len(data))] = rng.randrange(256)

    fates = [fate(bytes(damaged), None) for damaged in [*cut, *changed]]

    assert "truncated" in fates
    assert (160, 120, "JPEG") in fates
    assert [fate(bytes(damaged), 1) for damaged in [*cut, *changed]] == fates


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


def test_the_limits_are_those_of_the_whole_image():
    data = encoded(photo(160, 100), "JPEG")

    assert decode(data, ImageLimits(min_side=100), 25).pixels.shape == (25, 40, 3)
    assert fate(data, 25) == (160, 100, "JPEG")
    with pytest.raises(ImageError, match="160 x 100, max_pixels is 15999"):
        decode(data, ImageLimits(max_pixels=15_999), 25)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\xff\xd8\xff", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        *(encoded(photo(), form) for form in ("EPS", "PDF")),
    ],
)
def test_what_is_no_picture_is_refused(data):
    assert outcome(data) in ("not_an_image", "truncated", "decode_error")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
@pytest.mark.parametrize("seed", range(25))
def test_damage_gives_pixels_or_an_image_error_and_nothing_else(form, seed):
    rng = random.Random(seed)
    data = bytearray(encoded(photo(64, 48), form))
    for _ in range(rng.choice([1, 5, 50])):
        data[rng.randrange(len(data) if rng.random() < 0.5 else 64)] = rng.randrange(256)
    limits = ImageLimits(max_pixels=1_000_000)  # damage to a header makes it a bomb

    found = outcome(bytes(data), limits)

    assert isinstance(found, bytes) or found in REASONS


@pytest.mark.skipif(sys.platform != "linux", reason="counts what the process holds as Linux tells it")
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_a_host_without_memory_is_no_fault_of_the_image(form):
    small, large = (encoded(Image.new("RGB", (side, side)), form) for side in (64, 6000))

    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(len(small))], input=small + large, capture_output=True, check=False
    )

    assert done.returncode == errno.ENOMEM, done.stderr.decode()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_mistake_of_the_program_is_no_fault_of_the_image(form):
    limits = ImageLimits.model_construct(max_bytes=1 << 20, max_pixels=None)

    with pytest.raises(TypeError):
        decode(encoded(photo(), form), limits)


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
