"""The entries of published annotation files, and the images that they name."""

from collections.abc import Iterator
from typing import cast

import numpy as np

from capfilt.annotations import Entry, read_json
from capfilt.config.bootstrap import ImageLimits
from capfilt.errors import AnnotationError, ImageError
from capfilt.images import decode
from capfilt.storage import read_bytes


def read_entries(file: str, key: str) -> list[tuple[Entry, str]]:
    """Return the entries of a file, which is a list or an object with one under the key, each with its place.

    Raises:
        AnnotationError: the file is not there, is no JSON, or has another layout.
    """
    value = read_json(file)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and key in value[0]:
        value = value[0]  # an object reads as the one line of a file of lines
    items = value.get(key) if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise AnnotationError(f"{file}: holds neither a list nor one under {key}; give a file as it was published")
    return list(placed(items, file))


def placed(items: object, where: str) -> Iterator[tuple[Entry, str]]:
    """Yield the objects of a list, each with its place."""
    for number, entry in enumerate(cast("list[object]", items), 1):
        if not isinstance(entry, dict):
            raise AnnotationError(f"{where}: entry {number} is a {type(entry).__name__}, no object; fetch it again")
        yield entry, f"{where}: entry {number}"


def image_path(pattern: str, entry: Entry, where: str) -> str:
    """Return where the image of an entry lies: the pattern with the entry's values in its braces.

    Raises:
        AnnotationError: the pattern is malformed, or names a key that the entry lacks.
    """
    try:
        return pattern.format(**entry)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise AnnotationError(
            f"{where}: images: {pattern} does not fit ({type(error).__name__} {error}); it has {', '.join(entry)}"
        ) from None


def read_pixels(path: str, limits: ImageLimits) -> np.ndarray:
    """Return an image, uint8 (H, W, 3).

    Raises:
        AnnotationError: it is not there, or cannot be decoded within the limits.
    """
    try:
        return decode(read_bytes(path), limits).pixels
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise AnnotationError(
            f"{path}: is not there; set images of its annotation file to the pattern of the images' paths"
        ) from None
    except ImageError as error:
        raise AnnotationError(f"{path}: {error}; fetch it again, or drop its entries from the annotations") from error
