"""Taking batches, or parts of them, from a loader's processes."""

from collections.abc import Iterator
from typing import TypeVar

from capfilt.errors import CapfiltError

T = TypeVar("T")

Failure = CapfiltError | OSError
"""An error of reading. A process passes it on as an item, since torch would wrap a raised one in a traceback."""


def taken(made: Iterator[T | Failure]) -> Iterator[T]:
    """Yield what a loader's processes make, and end them with this generator.

    Raises:
        CapfiltError, OSError: the first that was handed over.
    """
    try:
        for each in made:
            if isinstance(each, CapfiltError | OSError):
                raise each
            yield each
    finally:
        del made  # ends the processes, which the traceback of an error would keep until it is collected


def unchanged(made: object) -> object:
    """Return what was made: a loader whose processes put batches together needs no collating."""
    return made
