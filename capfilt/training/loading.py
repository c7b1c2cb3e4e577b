"""Taking batches, or parts of them, from a loader's processes."""

from collections.abc import Iterator
from typing import TypeVar

from capfilt.errors import CapfiltError

T = TypeVar("T")

Failure = CapfiltError | OSError
"""An error while reading. A loader process yields it as an item, since torch would wrap a raised one."""


def taken(made: Iterator[T | Failure]) -> Iterator[T]:
    """Yield what a loader's processes make; the processes end with this generator.

    Raises:
        CapfiltError, OSError: the first one that a process yields.
    """
    try:
        for each in made:
            if isinstance(each, CapfiltError | OSError):
                raise each
            yield each
    finally:
        del made  # ends the processes, which an error's traceback would otherwise keep alive


def unchanged(made: object) -> object:
    """Return what was made: a loader whose processes put batches together needs no collating."""
    return made
