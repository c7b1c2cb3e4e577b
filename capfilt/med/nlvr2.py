"""NLVR2: is a sentence true of two images?

Each block of the text stack has two cross-attentions, one for each image, whose results are
combined: by their mean in the first blocks, by a linear layer over both in the others.

Shapes: B sentences, each with two images, L tokens, M image tokens, D text width.
Source: BLIP, arXiv 2201.12086, section 5.4 and figure 5.
"""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from capfilt.config.sizes import NLVR2Sizes, TextConfig
from capfilt.med.attention import Attention, Heads
from capfilt.med.residual import post_norm
from capfilt.med.text import Embeddings, Mlp
from capfilt.med.vision import VisionTower


class TwinAttention(nn.Module):
    """Attention over two images, combined before one residual and one norm."""

    def __init__(self, config: TextConfig, image_width: int, merge: bool) -> None:
        super().__init__()
        self.sides = nn.ModuleList(Heads(config, image_width) for _ in range(2))
        self.merge = nn.Linear(2 * config.width, config.width) if merge else None
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, images: tuple[Tensor, Tensor]) -> Tensor:
        """Map x (B, L, D) to (B, L, D); images are the tokens (B, M, D_image) of the left and the right one."""
        sides = zip(cast("Iterable[Heads]", self.sides), images, strict=True)
        left, right = (side.attend(side.query(x), side.project(image)) for side, image in sides)  # (B, L, D) each
        both = (left + right) / 2 if self.merge is None else self.merge(torch.cat([left, right], dim=-1))  # (B, L, D)
        return post_norm(x, self.dropout(both), self.norm)


class TwinBlock(nn.Module):
    """A transformer block of an encoder that looks at two images."""

    def __init__(self, config: TextConfig, image_width: int, merge: bool) -> None:
        super().__init__()
        self.encoder_attn = Attention(config, config.width)
        self.cross_attn = TwinAttention(config, image_width, merge)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, mask: Tensor, images: tuple[Tensor, Tensor]) -> Tensor:
        """Map x (B, L, D) to (B, L, D); mask (B, 1, 1, L) marks real tokens."""
        q, text = self.encoder_attn.project_all(x)
        x = self.encoder_attn(x, text, mask, q=q)  # (B, L, D)
        return self.mlp(self.cross_attn(x, images))  # type: ignore[no-any-return]


class TwinStack(nn.Module):
    """Embeddings and blocks."""

    def __init__(self, config: NLVR2Sizes) -> None:
        super().__init__()
        self.embeddings = Embeddings(config.text)
        self.blocks = nn.ModuleList(
            TwinBlock(config.text, config.vision.width, merge=layer >= config.merge_from)
            for layer in range(config.text.depth)
        )

    def forward(self, ids: Tensor, keep: Tensor, images: tuple[Tensor, Tensor]) -> Tensor:
        """Return the last states (B, L, D) of sentences, ids and keep (B, L)."""
        x: Tensor = self.embeddings(ids)  # (B, L, D)
        for block in self.blocks:
            x = block(x, keep[:, None, None, :], images)  # (B, L, D)
        return x


class NLVR2(nn.Module):
    """A model that judges a sentence about two images."""

    def __init__(self, config: NLVR2Sizes) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision)
        self.text = TwinStack(config)
        width = config.text.width
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def judge(self, images: Tensor, ids: Tensor, keep: Tensor) -> Tensor:
        """Return logits (B, 2); class 1 says that the sentence is true.

        Args:
            images: normalised, the left and the right one of each sentence, float (B, 2, 3, S, S).
            ids: sentences that start with [ENC], (B, L).
            keep: bool (B, L), True for real tokens.
        """
        tokens = self.vision(images.flatten(0, 1)).unflatten(0, (-1, 2))  # (B, 2, M, D_image)
        states = self.text(ids, keep, (tokens[:, 0], tokens[:, 1]))  # (B, L, D)
        return self.head(states[:, 0])  # type: ignore[no-any-return]
