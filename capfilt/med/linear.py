"""Linear layers for inference, in the forms that are fastest where they run.

On a GPU, queries, keys and values are one product, patches are rows of a product, the vocabulary is padded to whole
chunks, and an activation is fused into the product that it follows. On a CPU, weights may be packed, see packed.py.

Shapes: R rows, D_in and D_out widths, B images of side S, C channels, N = S // P patches a side, D width, V vocabulary.
"""

from typing import cast

import torch
import torch.nn.functional as F
from timm.layers import Mlp as VisionMlp
from torch import Tensor, nn

from capfilt.med.packed import PackedLinear
from capfilt.med.sampling import CHUNK
from capfilt.med.text import LanguageHead, Mlp, TextBlock, TextStack
from capfilt.med.vision import VisionTower

FOLLOWED = {VisionMlp: ("fc1", "act"), Mlp: ("up", "act"), LanguageHead: ("dense", "act")}
"""By module: the layer that a GELU follows, and that GELU."""


class CastLinear(nn.Module):
    """nn.Linear, computed in the type of its weight, whatever the type of the input."""

    def __init__(self, weight: Tensor, bias: Tensor | None, gelu: bool = False) -> None:
        """Take a weight (D_out, D_in).

        With gelu, the layer ends in that activation: on a GPU in its tanh approximation, whose error is below the
        rounding of bfloat16.
        """
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().to(weight.dtype), requires_grad=False)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D_in) to (..., D_out)."""
        x = x.to(self.weight.dtype)
        if not self.gelu:
            return F.linear(x, self.weight, self.bias)
        bias = cast("Tensor", self.bias)  # every layer that a GELU follows has one
        rows = torch._addmm_activation(bias, x.flatten(0, -2), self.weight.t(), use_gelu=True)  # (R, D_out)
        return rows.view(*x.shape[:-1], -1)


class PatchLinear(nn.Module):
    """A convolution whose stride equals its kernel size, as a product: a tenth of the time on a GPU."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.size = conv.stride[0]
        self.product = CastLinear(conv.weight.flatten(1), conv.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Map images or feature maps (B, C, S, S) to patch tokens (B, D, N, N)."""
        side = images.shape[-1] // self.size  # N
        patches = images.view(len(images), -1, side, self.size, side, self.size)  # (B, C, N, P, N, P)
        rows = patches.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, N, N, C P P)
        return cast("Tensor", self.product(rows)).permute(0, 3, 1, 2)


def replace_linear(model: nn.Module, kind: str, packed: bool, towers: bool = True) -> None:
    """Replace the linear layers of a model, in place. It can then neither be trained nor saved.

    An activation that follows a packed layer, or one in bfloat16 on a GPU, is fused into it.

    Args:
        model: its large products are already in the type that they are computed in.
        kind: of the device, "cpu" or "cuda".
        packed: lay weights out for oneDNN.
        towers: replace those of vision towers, too.
    """
    spared = [] if towers else [tower for tower in model.modules() if isinstance(tower, VisionTower)]
    kept = {module for tower in spared for module in tower.modules()}
    for module in [module for module in model.modules() if module not in kept]:
        _replace_own(module, kind, packed)


def _replace_own(module: nn.Module, kind: str, packed: bool) -> None:
    """Replace the linear layers that a module holds itself, not those of its submodules."""
    make = PackedLinear if packed else CastLinear
    if kind == "cuda":
        _suit_gpu(module)
    followed, activation = _fused(module, kind, packed)
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear:
            setattr(module, name, make(child.weight, child.bias, gelu=name == followed))
    if activation:
        setattr(module, activation, nn.Identity())
    if isinstance(module, TextStack) and hasattr(module, "head") and module.head.words is None:
        words = module.embeddings.words.weight, module.head.bias
        module.head.words = make(*(_whole_chunks(*words) if kind == "cuda" else words))


def _fused(module: nn.Module, kind: str, packed: bool) -> tuple[str, str]:
    """Return the layer of a module that its activation is fused into, and that activation; both empty if none is."""
    followed, activation = FOLLOWED.get(type(module), ("", ""))
    if not followed:
        return "", ""
    on_gpu = kind == "cuda" and getattr(module, followed).weight.dtype == torch.bfloat16
    return (followed, activation) if packed or on_gpu else ("", "")


def _suit_gpu(module: nn.Module) -> None:
    """Make one product of a vision tower's patch convolution, or of a text block's queries, keys and values."""
    if isinstance(module, VisionTower) and isinstance(module.vit.patch_embed.proj, nn.Conv2d):
        conv = module.vit.patch_embed.proj
        if conv.stride == conv.kernel_size:
            module.vit.patch_embed.proj = PatchLinear(conv)
    if isinstance(module, TextBlock):
        for name in ("encoder_attn", "decoder_attn"):
            attention = getattr(module, name, None)
            if attention is not None and attention.joint is None:
                parts = [attention.query, attention.key, attention.value]
                weight = torch.cat([part.weight for part in parts])  # (3 D, D)
                bias = torch.cat([part.bias for part in parts])  # (3 D,)
                attention.joint = CastLinear(weight, bias)
                del attention.query, attention.key, attention.value


def _whole_chunks(words: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the word matrix (V, D) and biases (V,), padded to whole chunks with words that are never written."""
    missing = -len(words) % CHUNK
    return F.pad(words, (0, 0, 0, missing)), F.pad(bias, (0, missing), value=float("-inf"))
