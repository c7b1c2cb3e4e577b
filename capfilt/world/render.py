"""Images of scenes: anti-aliased shapes on a noisy grey gradient."""

import io
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from numpy.random import Generator, Philox
from PIL import Image, ImageDraw

from capfilt.world.scenes import DIAMETER, Background, Colour, Scene, Shape, Size

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.float32]

RGB: dict[Colour, tuple[int, int, int]] = {
    "red": (215, 30, 35),
    "green": (35, 160, 55),
    "blue": (35, 70, 220),
    "yellow": (245, 225, 40),
    "purple": (150, 45, 185),
    "orange": (250, 135, 20),
    "white": (252, 252, 252),
    "black": (12, 12, 12),
}
_OVERSAMPLING = 8
_STEPS = 4  # a shape is placed to a quarter of a pixel
_NOISE = 3.0  # standard deviation of a grey level


def render(scene: Scene, side: int = 64) -> Pixels:
    """Return the image of a scene: RGB, uint8, (side, side, 3)."""
    pixels = _background(scene.background, side)  # (side, side, 3)
    for group in scene.groups:
        colour = np.array(RGB[group.colour], np.float32)
        for x, y in group.centres:
            _draw(pixels, group.shape, group.size, (x, y), colour)
    return np.asarray(pixels.clip(0, 255) + 0.5, np.uint8)


def encode(pixels: Pixels) -> bytes:
    """Return an image as JPEG, with colour at full resolution: a small object keeps its edges."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def _background(background: Background, side: int) -> Mask:
    rng = Generator(Philox(key=background.noise_seed))
    greys = np.linspace(background.top, background.bottom, side, dtype=np.float32)  # (side,)
    noise = rng.standard_normal((side, side), dtype=np.float32) * _NOISE
    return np.repeat((greys[:, None] + noise)[:, :, None], 3, axis=2)  # (side, side, 3)


def _draw(pixels: Mask, shape: Shape, size: Size, centre: tuple[float, float], colour: Mask) -> None:
    """Blend one object into the image, in place."""
    side = len(pixels)
    x, y = (round(share * side * _STEPS) for share in centre)
    mask = _mask(shape, DIAMETER[size] * side, x % _STEPS, y % _STEPS)  # (m, m)
    left, top = x // _STEPS - len(mask) // 2, y // _STEPS - len(mask) // 2
    # Only the empty rim of a mask can extend beyond the edge of the image.
    cut_left, cut_top = max(0, -left), max(0, -top)
    window = pixels[top + cut_top : top + len(mask), left + cut_left : left + len(mask)]
    alpha = mask[cut_top : cut_top + window.shape[0], cut_left : cut_left + window.shape[1], None]
    window += (colour - window) * alpha


@lru_cache(maxsize=1024)
def _mask(shape: Shape, diameter: float, step_x: int, step_y: int) -> Mask:
    """Return the share of each pixel that a shape covers, its centre a few steps off the middle of the mask."""
    half = math.ceil(diameter / 2) + 1
    scale = _OVERSAMPLING
    centre = [half * scale + step * scale / _STEPS for step in (step_x, step_y)]
    canvas = Image.new("L", (2 * half * scale, 2 * half * scale))
    draw = ImageDraw.Draw(canvas)
    for outline in _outlines(shape):
        draw.polygon(
            [tuple(c + p * diameter * scale / 2 for c, p in zip(centre, point, strict=True)) for point in outline], 255
        )
    covered = np.asarray(canvas, np.float32) / 255  # (2 half scale, 2 half scale)
    mask: Mask = covered.reshape(2 * half, scale, 2 * half, scale).mean(axis=(1, 3))  # (2 half, 2 half)
    return mask


def _outlines(shape: Shape) -> list[list[tuple[float, float]]]:
    """Return a shape as polygons that fill the square from -1 to 1."""
    match shape:
        case "circle":
            return [_around([1.0] * 48)]
        case "square":
            return [[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]]
        case "triangle":
            return [[(0, -0.95), (1, 0.85), (-1, 0.85)]]
        case "star":
            return [_around([1.05, 0.42] * 5)]


def _around(radii: list[float]) -> list[tuple[float, float]]:
    """Return points at equal angles around the origin, the first one straight up."""
    turn = 2 * math.pi / len(radii)
    return [(radius * math.sin(turn * i), -radius * math.cos(turn * i)) for i, radius in enumerate(radii)]
