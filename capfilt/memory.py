"""A batch that does not fit into the device's memory is computed in parts."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch

ALONE = threading.Lock()  # of the thread that records or drops graphs, or returns memory: torch fails if others record
SHORT = (
    *("CUDA error: out of memory", "CUDA driver error: out of memory", "Triton Error [CUDA]: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
)

R = TypeVar("R")

logger = logging.getLogger(__name__)


class InParts(Generic[R]):
    """Calls a model on a batch, and on halves of it once the whole has not fitted.

    What a batch is made of stays as it was, and so does what is recorded of it; only sums may round otherwise. A size
    that was too large is not tried again.
    """

    def __init__(self, model: Callable[..., list[R]]) -> None:
        """Take a model that returns a list, which those of its parts make up together."""
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
            if failed:  # only here has the failed call let go of its tensors
                size = self._most = -(-size // 2)
                with ALONE:
                    torch.cuda.empty_cache()
                _say(items, size)
        return values


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """Raise torch.OutOfMemoryError also where the driver or a library runs out, not torch's own allocator."""
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
