"""The vision half of MED: timm's ViT, read out at every token."""

from functools import partial
from itertools import pairwise
from math import isqrt

import timm.models.vision_transformer as timm_vit
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.config.sizes import VisionConfig
from capfilt.med.residual import pre_norm

# The statistics of CLIP's training images, which BLIP keeps (arXiv 2103.00020).
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
NORM_EPS = 1e-6
MIN_STEM_WIDTH = 16


class ConvStem(nn.Module):
    """Patch tokens from small convolutions, in place of one as large as a patch.

    With it, a tower that starts from random weights learns shapes from a fraction of the images
    (arXiv 2106.14881). The max-pooling at its end is our own. Published towers have no such stem.
    """

    def __init__(self, image_size: int, patch_size: int, width: int) -> None:
        super().__init__()
        halvings = patch_size.bit_length() - 2  # the pooling halves once more
        widths = [3, *(max(width >> step, MIN_STEM_WIDTH) for step in reversed(range(halvings)))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += _convolution(before, after, stride=2)
        layers += _convolution(widths[-1], width, stride=1)
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(2))
        self.proj = nn.Conv2d(width, width, kernel_size=1)
        self.num_patches = (image_size // patch_size) ** 2

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to patch tokens (B, N, D)."""
        return self.proj(self.layers(images)).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class PooledTransformer(timm_vit.VisionTransformer):  # type: ignore[misc]  # timm is not typed
    """timm's tower, whose class token starts from the strongest response of each channel in the image.

    Attention averages over the tokens: at the start of training the signal of a small object fades among
    its neighbours, and its detector gets hardly any gradient. The maximum passes it on undiluted.
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        tokens: Tensor = super()._pos_embed(x)  # (B, M, D), class token first
        strongest = x.amax(dim=1, keepdim=True)  # (B, 1, D)
        return torch.cat([tokens[:, :1] + strongest, tokens[:, 1:]], dim=1)  # (B, M, D)


def _convolution(before: int, after: int, stride: int) -> list[nn.Module]:
    # Normalised over the image alone, so that an image's tokens never depend on its batch.
    return [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.GroupNorm(1, after, eps=NORM_EPS), nn.GELU()]


class VisionTower(nn.Module):
    """Image to a sequence of tokens: the class token first, then one for each patch, all normed."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        conv = config.stem == "conv"
        self.vit = (PooledTransformer if conv else timm_vit.VisionTransformer)(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            drop_path_rate=config.drop_path,
            num_classes=0,
            norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),
            embed_layer=_conv_stem if conv else timm_vit.PatchEmbed,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images, float (B, 3, S, S), to tokens (B, M, D) of the same type, M = 1 + patches."""
        if torch.is_inference_mode_enabled():
            return self._read(images).to(images.dtype)
        return self.vit.forward_features(images).to(images.dtype)  # type: ignore[no-any-return]

    def _read(self, images: Tensor) -> Tensor:
        """Return what timm's forward_features does, with each sum fused with the norm that follows it."""
        halves = [half for block in self.vit.blocks for half in (block.attn, block.mlp)]
        norms = [norm for block in self.vit.blocks for norm in (block.norm1, block.norm2)] + [self.vit.norm]
        x: Tensor = self.vit._pos_embed(self.vit.patch_embed(images))  # (B, M, D)
        y: Tensor = norms[0](x)  # (B, M, D)
        for half, norm in zip(halves, norms[1:], strict=True):
            x, y = pre_norm(x, half(y), norm)  # (B, M, D) each
        return y

    def unfuse_attention(self) -> None:
        """Compute attention step by step, which is faster in bfloat16 on a CPU without matrix units."""
        for block in self.vit.blocks:
            block.attn.fused_attn = False


def _conv_stem(img_size: int, patch_size: int, embed_dim: int, **_: object) -> ConvStem:
    """Build the stem from sizes that timm's tower passes under these names."""
    return ConvStem(img_size, patch_size, embed_dim)


def normalise(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map RGB pixels, uint8 (B, 3, S, S), to the tower's input, float (B, 3, S, S)."""
    mean, std = (  # (3, 1, 1) each, filled in on the device, so that a GPU is not waited for
        torch.stack([torch.full((1, 1), value, device=pixels.device) for value in each]) for each in (MEAN, STD)
    )
    normal = torch.empty(pixels.shape, dtype=dtype, device=pixels.device)
    return torch.div(pixels / 255 - mean, std, out=normal)  # one pass over memory fewer than with a cast


def is_square(patches: int) -> bool:
    """Return whether a number of patches makes a square grid, as resize_positions assumes."""
    return patches > 0 and isqrt(patches) ** 2 == patches


def resize_positions(positions: Tensor, tokens: int) -> Tensor:
    """Return a position table (1, 1 + N, D) for an image of another size, (1, tokens, D).

    The class position is kept; the square grid of patch positions is interpolated, bicubic
    without antialiasing, as the original does when it loads a checkpoint at another image size.
    """
    old, new = round((positions.shape[1] - 1) ** 0.5), round((tokens - 1) ** 0.5)
    if old == new:
        return positions
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)  # (1, D, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)  # (1, D, new, new)
    return torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)  # (1, 1 + new * new, D)
