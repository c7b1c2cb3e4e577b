"""Communication between ranks, all of it. In a single process these functions are identities.

Shapes: W ranks, B rows of this rank, L tokens.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """Return the index of this process among them, from 0."""
    return dist.get_rank() if _together() else 0


def gather(x: Tensor) -> Tensor:
    """Return the rows of all ranks in the order of ranks, (B, ...) -> (W * B, ...), without a gradient.

    x must have the same shape on every rank.
    """
    if world_size() == 1:
        return x.detach()
    rows = x.new_empty(world_size() * len(x), *x.shape[1:])  # (W * B, ...)
    dist.all_gather_into_tensor(rows, x.detach().contiguous())
    return rows


def gather_with_gradient(x: Tensor) -> Tensor:
    """Return the rows of all ranks as gather does; the gradients that all ranks give a row reach the row's rank."""
    return x if world_size() == 1 else _Gather.apply(x)


def gather_texts(ids: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return this rank's texts (B, L), then those of all ranks (W * B, L), each as ids and keep.

    Each rank pads to its own longest text, so all are first padded to the longest of any rank.
    """
    length = torch.tensor(ids.shape[1], device=ids.device)
    if world_size() > 1:
        dist.all_reduce(length, dist.ReduceOp.MAX)
    missing = (0, int(length) - ids.shape[1])
    ids, keep = F.pad(ids, missing), F.pad(keep, missing)  # (B, L), (B, L)
    return ids, keep, gather(ids), gather(keep)


class _Gather(torch.autograd.Function):
    """All-gather; its transpose sums over ranks and keeps this rank's rows."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)  # (W * B, ...)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]  # (B, ...)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
