"""A batch that does not fit into the device's memory is computed in parts."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

ALONE = threading.Lock()  # held to capture or drop graphs or to release memory: torch fails if another thread captures
SHORT = (
    *("CUDA error: out of memory", "CUDA driver error: out of memory", "Triton Error [CUDA]: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
)

R = TypeVar("R")

logger = logging.getLogger(__name__)


class InParts(Generic[R]):
    """Calls a model on a batch or, once a whole one did not fit, on halves of it.

    The composition of the batch stays the same, and so does what is recorded of it; only sums may round differently.
    A size that was too large is not tried again.
    """

    def __init__(self, model: Callable[..., list[R]]) -> None:
        """Take a model that returns a list; the lists of a batch's parts, joined, are that of the batch."""
        self._model = model
        self._most: int | None = None  # items that fit

    def __call__(self, *columns: Sequence[object] | torch.Tensor) -> list[R]:
        """Return the list of a batch, given as columns of equal length.

        Raises:
            torch.OutOfMemoryError: not even a single item fits.
        """
        items, size, done = len(columns[0]), self._most or len(columns[0]), 0
        values: list[R] = []
        while done < items:
            try:
                with out_of_memory_told():
                    values += self._model(*(column[done : done + size] for column in columns))
            except torch.OutOfMemoryError:
                if size == 1:
                    raise
                failed = True
            else:
                done, failed = done + size, False
            if failed:  # not in the except block, where the failed call still holds its tensors
                size = self._most = -(-size // 2)
                with ALONE:
                    torch.cuda.empty_cache()
                _say(items, size)
        return values


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Raise torch.OutOfMemoryError also when the driver or a library, not torch's allocator, runs out of memory."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not any(sign in str(error) for sign in SHORT):
            raise
        raise torch.OutOfMemoryError(str(error)) from error


def _say(items: int, size: int) -> None:
    logger.warning(
        "out of memory with a batch of %d images; it is computed %d at a time from now on. A smaller batch_size in a "
        "new run avoids the parts",
        items,
        size,
    )
