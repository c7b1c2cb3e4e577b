"""Images: decoding within limits to upright 8-bit RGB, and the square resize of the models.

simplejpeg decodes ordinary JPEGs if it is installed, and Pillow all other files; the pixels are the same either way.
Both can shrink a JPEG while decoding, by the inverse cosine transform of fewer coefficients of each block. Nothing
global of Pillow is changed, so several threads may decode at once. Pillow's own cap on pixels applies in addition to
the configured one.
"""

import errno
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from capfilt.config import ImageLimits
from capfilt.errors import ImageError

if TYPE_CHECKING:
    import torch

try:
    import simplejpeg
except ImportError:  # the extra "fast" is not installed
    simplejpeg = None

# What web pages and archives show; formats that run code or read other files (EPS, WMF, ...) are not opened.
_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")
# By how much a JPEG may be shrunk. An eighth is left out: it costs nearly the time of a quarter.
_REDUCTIONS = (4, 2)
# What Pillow's plugins raise on hostile bytes; the file is at fault, not the run. MemoryError is not among them: an
# image within the limits needs no more memory than it may have, so the host is at fault. (When libwebp or libtiff runs
# out of memory, it looks like damage.)
_DECODER_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, struct.error, zlib.error, Warning, Image.DecompressionBombError),
)


class _Turn(NamedTuple):
    """How stored pixels are made upright: swap the axes, then flip rows, then flip columns."""

    swap: bool = False
    rows: bool = False
    columns: bool = False


_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: _Turn(False, False, True),
    3: _Turn(False, True, True),
    4: _Turn(False, True, False),
    5: _Turn(True, False, False),
    6: _Turn(True, False, True),
    7: _Turn(True, True, True),
    8: _Turn(True, True, False),
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as it is displayed."""

    pixels: np.ndarray  # RGB, uint8, (H, W, 3); of a shrunk JPEG a half or a quarter of height and width, rounded up
    width: int  # of the whole image
    height: int
    format: str  # of the file: "JPEG", "PNG", ...


def decode(data: bytes, limits: ImageLimits, least_side: float | None = None) -> DecodedImage:
    """Decode an image file to upright RGB.

    Animations give their first frame. Transparent pixels become white, the background of most web pages, which is what
    the writer of the text saw. 16-bit values are scaled to 8 bits.

    Args:
        data: the file.
        limits: on the size of file and image.
        least_side: a JPEG is shrunk to a half or a quarter if no side falls below this; None keeps its size.
            The same files are refused either way.

    Raises:
        ImageError: its reason is one of not_an_image, truncated, too_large, too_many_pixels, bad_shape,
            unsupported_mode and decode_error.
        OSError: the host has no memory for it (ENOMEM), which may pass.
    """
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"has {len(data)} bytes, max_bytes is {limits.max_bytes}")
    try:
        return _decode(data, limits, least_side)
    except MemoryError as error:
        raise OSError(errno.ENOMEM, f"no memory to decode an image of {len(data)} bytes") from error


def _decode(data: bytes, limits: ImageLimits, least_side: float | None) -> DecodedImage:
    """Decode a file of a size within the limits."""
    with _faults_of(data):
        opened = Image.open(io.BytesIO(data), formats=_formats())
    with opened as image:
        _check_shape(image.size, limits)
        whole, shrunk = image.size, _shrink(image, least_side, data)
        pixels = _jpeg_pixels(data, image)
        if pixels is None:
            with _faults_of(data):
                image.load()
            if not shrunk:
                whole = image.size  # some formats know their size only after loading
                _check_shape(whole, limits)
            pixels = _rgb(image, data)
        turn = _turn(image)
        name = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a JPEG followed by others
    return DecodedImage(_turned(pixels, turn), *(whole[::-1] if turn.swap else whole), name)


def resize(pixels: np.ndarray, side: int) -> "torch.Tensor":
    """Return an image (H, W, 3) as a square (3, side, side), uint8; bicubic with antialias, aspect not kept.

    Against Pillow's BICUBIC, fewer than one value in a hundred differs by one level of 255 and a few in a million
    by two, from rounding between the two passes. The result is the same for any number of threads.
    """
    import torch  # here, since commands that only look at images must not wait for it
    import torch.nn.functional as F

    chw = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)
    square = F.interpolate(chw[None], size=(side, side), mode="bicubic", antialias=True)  # (1, 3, S, S)
    return square[0].contiguous()


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Return the formats of _FORMATS that this Pillow was built with."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _check_shape(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageError("too_many_pixels", f"is {width} x {height}, max_pixels is {limits.max_pixels}")
    if min(size) < limits.min_side:
        raise ImageError("bad_shape", f"is {width} x {height}, min_side is {limits.min_side}")
    if max(size) > limits.max_aspect * min(size):
        raise ImageError("bad_shape", f"is {width} x {height}, max_aspect is {limits.max_aspect}")


def _shrink(image: Image.Image, least_side: float | None, data: bytes) -> bool:
    """Set the size at which a JPEG is decoded, and return whether it is less than the whole."""
    if least_side is None or image.format not in ("JPEG", "MPO"):
        return False
    least = max(least_side, 4)  # below that, simplejpeg finds a smaller fraction of the same size
    factor = next((factor for factor in _REDUCTIONS if min(image.size) // factor >= least), 1)
    with _faults_of(data):
        return factor > 1 and image.draft(None, (image.width // factor, image.height // factor)) is not None


def _jpeg_pixels(data: bytes, image: Image.Image) -> np.ndarray | None:
    """Decode an ordinary JPEG, or return None: Pillow then decides, so that both ways refuse the same files."""
    if simplejpeg is None or image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, "RGB", min_height=image.height, min_width=image.width)
    except (ValueError, RuntimeError):
        return None
    return pixels


def _rgb(image: Image.Image, data: bytes) -> np.ndarray:
    """Return the pixels of a loaded image as RGB (H, W, 3), whatever its mode."""
    if image.mode.startswith(("I", "F")):
        return np.repeat(_eight_bits(image, data)[:, :, None], 3, axis=2)
    with _faults_of(data):  # conversions look at palettes and transparency as the file gives them
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            ground = Image.new("RGBA", layer.size, "white")
            ground.alpha_composite(layer)
            image = ground
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _eight_bits(image: Image.Image, data: bytes) -> np.ndarray:
    """Scale grey pixels of 16 bits to 8: 65535 becomes 255. Pillow's own conversion would clip them to white."""
    with _faults_of(data):
        grey = np.asarray(image)  # (H, W)
    if image.mode == "F" or grey.min(initial=0) < 0 or grey.max(initial=0) > 65535:
        raise ImageError("unsupported_mode", f"has pixels of mode {image.mode}, whose white is not known")
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _turn(image: Image.Image) -> _Turn:
    """Return how the EXIF orientation turns a loaded image. EXIF data that cannot be read is ignored."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1), _Turn())
    except _DECODER_ERRORS:
        return _Turn()


def _turned(pixels: np.ndarray, turn: _Turn) -> np.ndarray:
    if turn == _Turn():
        return pixels
    turned = pixels.transpose(1, 0, 2) if turn.swap else pixels
    # ascontiguousarray would keep the negative stride of an axis of one pixel, which torch refuses
    return turned[:: -1 if turn.rows else 1, :: -1 if turn.columns else 1].copy()


@contextmanager
def _faults_of(data: bytes) -> Iterator[None]:
    """Turn what a decoder raises in the block into an ImageError of its file. The block should only call a decoder."""
    try:
        yield
    except _DECODER_ERRORS as error:
        raise _refusal(error, data) from error


def _refusal(error: BaseException, data: bytes) -> ImageError:
    """Return the ImageError for what a decoder raised."""
    if isinstance(error, UnidentifiedImageError):
        return ImageError("not_an_image", f"is not an image that can be read: {len(data)} bytes, {data[:20]!r}")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("too_many_pixels", str(error))
    reason = "truncated" if "truncated" in str(error).lower() else "decode_error"
    return ImageError(reason, f"cannot be decoded: {type(error).__name__}: {error}")
