"""Linear layers whose weights are laid out for oneDNN, and whether they suit this machine.

On a CPU torch hands a float32 product to MKL, which is slow for the few rows of a decoding step and, on processors not
made by Intel, takes an older path for many rows. oneDNN, also part of torch, is fast at both once a weight is laid out
for it. It is reached through operators of torch's own compiler, since the public layout (torch.utils.mkldnn) copies at
every call.

Shapes: D_in and D_out widths.
"""

from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.med.cpu import maker

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}  # relative to the largest value: a few roundings of each type
ROWS = 512  # of input that the layout is chosen for; it works for any number


class PackedLinear(nn.Module):
    """CastLinear with its weight laid out for oneDNN; on a CPU only."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> None:
        """Lay out a weight (D_out, D_in). With gelu, the layer ends in that activation."""
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach().to(weight.dtype)
        self.after = ("gelu", "none") if gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D_in) to (..., D_out)."""
        activation, kind = self.after
        x = x.to(self.weight.dtype)
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], kind))


@cache
@torch.no_grad()
def packing_suits(dtype: torch.dtype) -> bool:
    """Return whether packed linear layers are faster here for texts, and give the same results as plain ones."""
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not there or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.float32 and not maker():
        return False
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(shape, generator=generator).to(dtype) for shape in ((96, 64), (96,), (5, 64)))
    expected = F.linear(x, weight, bias)
    return bool((PackedLinear(weight, bias)(x) - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max())


def packing_suits_images(dtype: torch.dtype) -> bool:
    """Return whether they are faster for images, too: in float32, MKL is faster on Intel's processors."""
    return dtype != torch.float32 or maker() != "Intel"
