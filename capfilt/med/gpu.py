"""What a GPU can do beyond torch's plain operators, and where it may be asked for."""

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import NamedTuple, Self

import torch
from torch import Tensor

FLASH = (8, 0)  # compute capability from which on torch's flash attention runs

logger = logging.getLogger(__name__)


def kernels_suit(x: Tensor) -> bool:
    """Return whether the kernels of kernels.py may take x: in inference, on a GPU where they can be compiled."""
    return x.is_cuda and torch.is_inference_mode_enabled() and _kernels_run()


def few_suit(q: Tensor) -> bool:
    """Return whether the kernel for a few queries of each image may take q: one in bfloat16, as its products are."""
    return q.dtype == torch.bfloat16 and kernels_suit(q)


def lists_suit(x: Tensor) -> bool:
    """Return whether attention may take x in lists of unlike length, without padding: in bfloat16, on a newer GPU."""
    return x.is_cuda and x.dtype == torch.bfloat16 and torch.is_inference_mode_enabled() and _flash_runs()


def own_stream(kind: str, urgent: bool = False) -> AbstractContextManager[object]:
    """Return a block, which can be entered again and again, whose work on a GPU waits for no other block's.

    Urgent work goes before that of other streams where it has come to wait. On a CPU the block does nothing.
    """
    if kind == "cpu":
        return nullcontext()
    stream = torch.cuda.Stream(priority=-1 if urgent else 0)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.default_stream())  # which brings the weights there
    return torch.cuda.stream(stream)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to a device; a GPU gets it behind the work it has, and is not waited for."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # a copy from other memory may wait
    return tensor.to(device, non_blocking=True)


class Spans(NamedTuple):
    """Where each of G groups begins and ends in a list."""

    bounds: Tensor  # int32 (G + 1,)
    longest: int  # rows of a group

    @classmethod
    def of(cls, owners: Tensor, groups: int) -> Self:
        """Tell where the groups of rows lie that owners (T,), not decreasing, names; it waits for their device."""
        counts = torch.bincount(owners, minlength=groups)  # (G,)
        return cls(torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int(), int(counts.max()))

    @classmethod
    def even(cls, groups: int, rows: int, device: torch.device) -> Self:
        """Tell where groups of equally many rows lie."""
        return cls(torch.arange(0, (groups + 1) * rows, rows, dtype=torch.int32, device=device), rows)

    def rounded(self, step: int) -> Self:
        """Return the same, with the longest group taken for as long as the next multiple of a step."""
        return self._replace(longest=-(-self.longest // step) * step)


def listed_attention(q: Tensor, keys: Tensor, values: Tensor, places: Spans, seen: Spans) -> Tensor:
    """Return softmax(q keys^T / sqrt(K)) values within each group, (T, H, K).

    Args:
        q: (T, H, K), the queries of all G groups, one group behind the other.
        keys: (S, H, K), likewise.
        values: (S, H, K).
        places: of the groups' queries.
        seen: of the groups' keys.
    """
    # The public torch.nn.attention.varlen says the same from torch 2.10 on, and takes the host longer for each call.
    bounds, longest = zip(places, seen, strict=True)
    attend = torch.ops.aten._flash_attention_forward
    return attend(q, keys, values, *bounds, *longest, 0.0, False, False)[0]  # type: ignore[no-any-return]


@cache
def _flash_runs() -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability() >= FLASH


@cache
def _kernels_run() -> bool:
    """Try a kernel. Triton needs a C compiler, which a slim container may lack; all of it works without, slower."""
    one = torch.ones(16, device="cuda")
    try:
        from capfilt.med import kernels

        kernels.add_norm(one[None], one[None], one, one, 1e-6, None, torch.empty_like(one[None]))
    except (ImportError, OSError, RuntimeError) as error:
        logger.warning(
            "Triton cannot compile kernels here, and models take about a third longer without: %s. "
            "Install a C compiler (gcc) and Python's headers",
            error,
        )
        return False
    return True
