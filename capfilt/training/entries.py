"""Entries of published annotation files, and their images."""

from collections.abc import Iterator
from typing import cast

import numpy as np

from capfilt.annotations import Entry, read_json
from capfilt.config.bootstrap import ImageLimits
from capfilt.errors import AnnotationError, ImageError
from capfilt.images import decode
from capfilt.storage import read_bytes


def read_entries(file: str, key: str) -> list[tuple[Entry, str]]:
    """Return the entries of a file, each with its place; the file is a list, or an object with a list under the key.

    Raises:
        AnnotationError: the file is missing, is not JSON, or has another layout.
    """
    value = read_json(file)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict) and key in value[0]:
        value = value[0]  # read_json takes an object for a file of one JSON line
    items = value.get(key) if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise AnnotationError(f"{file}: is neither a list nor an object with one under {key}; give a published file")
    return list(placed(items, file))


def placed(items: object, where: str) -> Iterator[tuple[Entry, str]]:
    """Yield the objects of a list, each with its place."""
    for number, entry in enumerate(cast("list[object]", items), 1):
        if not isinstance(entry, dict):
            raise AnnotationError(f"{where}: entry {number} is a {type(entry).__name__}, not an object; fetch it again")
        yield entry, f"{where}: entry {number}"


def image_path(pattern: str, entry: Entry, where: str) -> str:
    """Return the path of an entry's image: the pattern, with the entry's values in its braces.

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
        AnnotationError: it is missing, or cannot be decoded within the limits.
    """
    try:
        return decode(read_bytes(path), limits).pixels
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise AnnotationError(
            f"{path}: is not there; set the key images of its annotation file to the pattern of the images' paths"
        ) from None
    except ImageError as error:
        raise AnnotationError(f"{path}: {error}; fetch it again, or remove its entries from the annotations") from error
