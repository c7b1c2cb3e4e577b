"""Small pictures of samples for a page, decoded within the run's limits."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from capfilt.config import ImageLimits
from capfilt.errors import ImageError
from capfilt.images import decode
from capfilt.query.cards import Place

SIDE = 320  # pixels, the longer one
QUALITY = 70
LEFT_OUT = "left out, to keep the file small"


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail as a data: URI, or why there is none."""

    data: str
    width: int
    height: int
    missing: str = ""


def make_pictures(images: Mapping[Place, bytes | str], limits: ImageLimits, budget: int) -> dict[Place, Picture]:
    """Return a picture for each image, in their order, as far as a budget of bytes for their data URIs goes."""
    pictures = {}
    for place, image in images.items():
        picture = Picture("", 0, 0, image) if isinstance(image, str) else make_picture(image, limits)
        budget -= len(picture.data)
        pictures[place] = picture if budget >= 0 else Picture("", 0, 0, LEFT_OUT)
    return pictures


def make_picture(image: bytes, limits: ImageLimits) -> Picture:
    """Return the thumbnail of an encoded image; one smaller than SIDE keeps its size."""
    try:
        thumbnail = Image.fromarray(decode(image, limits, SIDE).pixels)
    except ImageError as error:
        return Picture("", 0, 0, str(error))
    thumbnail.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    thumbnail.save(buffer, "WEBP", quality=QUALITY)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{data}", *thumbnail.size)
