"""Linear layers for inference: those whose weight is in another type than the states, and those laid out for a CPU.

torch hands a float32 product to MKL, which takes an older, slower path on processors of other makers, and is slow for
the few rows of a decoding step. oneDNN, which is part of torch too, is not, once a weight is laid out for it. The way
there is the operators of torch's own compiler: the public layout (torch.utils.mkldnn) copies at every call.
"""

from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import Mlp as VisionMlp
from torch import Tensor, nn

from capfilt.med.text import LanguageHead, Mlp, TextStack

ROWS = 512  # that a layout is chosen for; any number works
FOLLOWED = {VisionMlp: ("fc1", "act"), Mlp: ("up", "act"), LanguageHead: ("dense", "act")}
"""The layer of a module that a GELU follows, and that GELU."""


class CastLinear(nn.Module):
    """What nn.Linear computes in the type of its weight, whatever the type of the input."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take a weight (D_out, D_in)."""
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D_in) to (..., D_out)."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class PackedLinear(nn.Module):
    """What CastLinear computes, from a weight laid out for oneDNN; on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> None:
        """Lay a weight (D_out, D_in) out. With gelu, the layer ends in that activation."""
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach().to(weight.dtype)
        self.after = ("gelu", "none") if gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D_in) to (..., D_out)."""
        activation, kind = self.after
        x = x.to(self.weight.dtype)
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], kind))


def replace_linear(model: nn.Module, packed: bool) -> None:
    """Replace the linear layers of a model, in place. It can then neither be trained nor saved.

    An activation that follows a packed layer becomes part of it.
    """
    for module in list(model.modules()):
        followed, activation = FOLLOWED.get(type(module), ("", "")) if packed else ("", "")
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                layer = (child.weight, child.bias)
                setattr(module, name, PackedLinear(*layer, gelu=name == followed) if packed else CastLinear(*layer))
        if activation:
            setattr(module, activation, nn.Identity())
        if isinstance(module, TextStack) and hasattr(module, "head"):
            words = (module.embeddings.words.weight, module.head.bias)
            module.head.words = PackedLinear(*words) if packed else CastLinear(*words)
