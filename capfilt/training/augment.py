"""Image augmentation: a random crop, a horizontal flip and RandAugment, on pixels of 8 bits.

Shapes: H, W as decoded; S side of the square that the model takes.
Source: RandAugment, arXiv 1909.13719, with the ten operations, the strengths and the grey fill of BLIP's released
code, which uses OpenCV where this module uses Pillow. The differences: shears, translations and rotations sample at
pixel centres, not corners, and do not blend image edges with the fill; values are rounded, not truncated. Autocontrast
and equalisation are the same in both.
"""

import math

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from capfilt.config.data import Augmentation
from capfilt.images import resize

PLAIN = Augmentation()  # changes nothing, as in evaluation
GREY = (128, 128, 128)  # fills what a shear, translation or rotation leaves empty
ASPECTS = (3 / 4, 4 / 3)  # of a crop, before it is resized to a square
ATTEMPTS = 10  # to fit a crop into the image
OPERATIONS = (
    *("identity", "autocontrast", "brightness", "sharpness", "equalize"),
    *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
)


class Views:
    """Makes the square view of an image that a model is trained on."""

    def __init__(self, side: int, settings: Augmentation) -> None:
        self.side, self.settings = side, settings

    def keep(self, pixels: np.ndarray) -> Tensor:
        """Return what views of an image (H, W, 3) are drawn from, uint8: all of it, or its square if never cropped."""
        if self.settings.min_scale is None:
            return resize(pixels, self.side)  # (3, S, S)
        return torch.from_numpy(pixels).permute(2, 0, 1)  # (3, H, W)

    def draw(self, kept: Tensor, rng: Generator) -> Tensor:
        """Return a view, uint8 (3, S, S). Equal generators give equal views."""
        if self.settings.min_scale is not None:
            top, left, height, width = crop_box(kept.shape[1], kept.shape[2], self.settings.min_scale, rng)
            cut = kept[:, top : top + height, left : left + width]  # (3, height, width)
            kept = resize(cut.permute(1, 2, 0).numpy(), self.side)  # (3, S, S)
        if self.settings.flip and rng.random() < 0.5:
            kept = kept.flip(2)
        return rand_augment(kept, self.settings, rng) if self.settings.operations else kept


def crop_box(height: int, width: int, min_scale: float, rng: Generator) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random crop.

    Its area is a share of the image's between min_scale and 1, its aspect between 3:4 and 4:3, uniform in the
    logarithm. If no draw fits into the image, it is the largest central crop within these aspects.

    Source:
        Inception's crop, arXiv 1409.4842, section 6, with the limits of torchvision's RandomResizedCrop.
    """
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(min_scale, 1.0)
        aspect = math.exp(rng.uniform(math.log(ASPECTS[0]), math.log(ASPECTS[1])))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            return int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1)), high, wide
    wide = min(width, max(1, round(height * ASPECTS[1])))
    high = min(height, max(1, round(width / ASPECTS[0])))
    return (height - high) // 2, (width - wide) // 2, high, wide


def rand_augment(pixels: Tensor, settings: Augmentation, rng: Generator) -> Tensor:
    """Return an image (3, S, S) after randomly drawn operations, each applied with probability settings.chance."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    for number in rng.integers(len(OPERATIONS), size=settings.operations):
        if rng.random() < settings.chance:
            sign = 1 if rng.random() < 0.5 else -1
            image = apply(OPERATIONS[number], image, settings.level / 10, sign)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # (3, S, S)


def apply(operation: str, image: Image.Image, strength: float, sign: int) -> Image.Image:
    """Return an image after one operation; strength 0 to 1, sign -1 or 1 for those that have a direction.

    At full strength a shear is 0.3, a translation 10 pixels, a rotation 30 degrees, an enhancement 1.9 (0.1 at none).
    """
    factor, shear, move = 0.1 + 1.8 * strength, sign * 0.3 * strength, sign * 10 * strength
    match operation:
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(factor)
        case "sharpness":
            return ImageEnhance.Sharpness(image).enhance(factor)
        case "rotate":
            return image.rotate(sign * 30 * strength, Image.Resampling.BILINEAR, fillcolor=GREY)
        case "shear_x":
            return _affine(image, (1, -shear, 0, 0, 1, 0))
        case "shear_y":
            return _affine(image, (1, 0, 0, -shear, 1, 0))
        case "translate_x":
            return _affine(image, (1, 0, -move, 0, 1, 0))
        case "translate_y":
            return _affine(image, (1, 0, 0, 0, 1, -move))
        case _:  # identity
            return image


def _affine(image: Image.Image, to_input: tuple[float, ...]) -> Image.Image:
    """Return an image whose pixel (x, y) is that of the input at (a x + b y + c, d x + e y + f)."""
    return image.transform(image.size, Image.Transform.AFFINE, to_input, Image.Resampling.BILINEAR, fillcolor=GREY)
