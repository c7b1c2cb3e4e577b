"""Linear layers for CPUs whose plain matrix product is not their fastest.

torch hands a float32 product to MKL, which takes an older, slower path on processors of other makers, and is slow for
the few rows of a decoding step. oneDNN, which is part of torch too, is not, once a weight is laid out for it. The way
there is the operators of torch's own compiler: the public layout (torch.utils.mkldnn) copies at every call.
"""

from typing import cast

import torch
from timm.layers import Mlp as VisionMlp
from torch import Tensor, nn

from capfilt.med.text import LanguageHead, Mlp, TextStack

ROWS = 512  # that a layout is chosen for; any number works
FOLLOWED = {VisionMlp: ("fc1", "act"), Mlp: ("up", "act"), LanguageHead: ("dense", "act")}
"""The layer of a module that a GELU follows, and that GELU."""


class PackedLinear(nn.Module):
    """What nn.Linear computes, from a weight laid out for oneDNN; for inference on a CPU."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> None:
        """Lay a weight (D_out, D_in) out. With gelu, the layer ends in that activation."""
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        self.bias = None if bias is None else bias.detach()
        self.after = ("gelu", "none") if gelu else ("none", "")

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D_in) to (..., D_out)."""
        activation, kind = self.after
        return cast("Tensor", torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], kind))


def pack(model: nn.Module) -> None:
    """Replace the linear layers of a model, in place. It can then neither be trained nor saved.

    An activation that follows a layer becomes part of it.
    """
    for module in list(model.modules()):
        followed = FOLLOWED.get(type(module), ("", ""))
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, PackedLinear(child.weight, child.bias, gelu=name == followed[0]))
        if followed[1]:
            setattr(module, followed[1], nn.Identity())
        if isinstance(module, TextStack) and hasattr(module, "head"):
            module.head.words = PackedLinear(module.embeddings.words.weight, module.head.bias)
