"""A batch that does not fit is computed in parts, and nothing of it is lost, doubled or reordered."""

import logging
from threading import Thread

import pytest
import torch

from capfilt.memory import ALONE, InParts


class Small:
    """A model with room for a few items."""

    def __init__(self, room: int) -> None:
        self.room, self.calls = room, []

    def __call__(self, pixels: torch.Tensor, names: list[str]) -> list[str]:
        self.calls.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [f"{name}{int(pixel)}" for pixel, name in zip(pixels, names, strict=True)]


def batch(items: int) -> tuple[torch.Tensor, list[str]]:
    return torch.arange(items), [chr(97 + n) for n in range(items)]


@pytest.mark.parametrize("room", [1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("items", [1, 5, 8])
def test_every_item_comes_once_and_in_order(room, items):
    assert InParts(Small(room))(*batch(items)) == [f"{chr(97 + n)}{n}" for n in range(items)]


def test_a_size_that_was_too_large_is_not_tried_again(caplog):
    model = Small(3)
    parts = InParts(model)
    with caplog.at_level(logging.WARNING):
        parts(*batch(8))
        parts(*batch(8))
    assert model.calls == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "out of memory with a batch of 8 images"
    ] * 2


def test_an_item_that_does_not_fit_alone_is_an_error():
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        InParts(Small(0))(*batch(4))


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA driver error: out of memory",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_memory_that_a_library_lacks_is_lacking_too(words):
    def model(pixels: torch.Tensor) -> list[int]:
        if len(pixels) > 1:
            raise RuntimeError(words)
        return pixels.tolist()

    assert InParts(model)(torch.arange(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("division by zero"), RuntimeError("CUDA error: device-side assert")]
)
def test_other_errors_pass(error):
    def model(pixels: list[int]) -> list[int]:
        raise error

    with pytest.raises(type(error), match=str(error)):
        InParts(model)([1, 2])


def test_memory_is_not_returned_while_another_thread_records():
    """torch's allocator takes that for an error of its own, which no part of the batch would mend."""
    values: list[str] = []
    short = Thread(target=lambda: values.extend(InParts(Small(1))(*batch(2))))
    with ALONE:
        short.start()
        short.join(0.2)
        assert short.is_alive()
    short.join()
    assert values == ["a0", "b1"]
