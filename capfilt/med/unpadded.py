"""Texts to be encoded in inference, without their padding: one list of their real tokens, grouped for attention.

Shapes: B images, R texts, T real tokens of all of them, L tokens of the longest.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from capfilt.med.gpu import send
from capfilt.med.ragged import Padding, Spans, Varlen

LIST, TEXTS, GROUP = 512, 128, 128  # lengths of lists of tokens, of lists of texts and of groups are multiples of these


class Grouping(NamedTuple):
    """How listed tokens are grouped for attention: by text for self-attention, by image for cross-attention."""

    texts: Padding | Varlen  # of R texts
    images: Padding | Varlen  # of B images
    mask: Tensor | None = None  # bool (R, 1, 1, L), True for the real tokens of each text; only with Padding


class UnpaddedTexts(NamedTuple):
    """Texts as a list of their T real tokens; the last block computes only the first token of each of the R texts.

    For attention, tokens are grouped in padded rectangles or, for a GPU, which needs no padding, in lists.
    """

    ids: Tensor  # int64 (T,)
    positions: Tensor  # int64 (T,), in the text
    owners: Tensor  # int64 (R,), the image of each text
    starts: Tensor  # int64 (R,), index of each text's first token in the list
    tokens: Grouping
    firsts: Grouping

    @classmethod
    def of(cls, ids: Tensor, keep: Tensor, owners: Tensor, images: int) -> "UnpaddedTexts":
        """List the real tokens of texts, grouped in rectangles.

        Args:
            ids: int64 (R, L).
            keep: bool (R, L), True for real tokens.
            owners: int64 (R,), the image of each text, non-decreasing.
            images: B.
        """
        rows, texts, positions = cls._real_tokens(keep)
        inner = Padding.of(texts, len(keep))
        mask = keep[:, None, None, : inner.width]  # (R, 1, 1, L)
        tokens = Grouping(inner, Padding.of(owners[texts], images), mask)
        firsts = Grouping(Padding.of(rows, len(keep)), Padding.of(owners, images), mask)
        return cls(ids[keep], positions, owners, torch.searchsorted(texts, rows), tokens, firsts)

    @classmethod
    def varlen(cls, ids: Tensor, keep: Tensor, owners: Tensor, images: int, tokens: int) -> "UnpaddedTexts":
        """List the real tokens of texts, grouped in lists, for images of `tokens` tokens; the rest is as in `of`.

        The lengths of lists and of their longest groups are rounded up, so that few different ones occur. The padding
        belongs to no group, and its results are meaningless.
        """
        rows, texts, positions = cls._real_tokens(keep)
        more_tokens, more_texts = -len(texts) % LIST, -len(keep) % TEXTS
        whole = Spans.of(texts, len(keep) + more_texts).rounded(GROUP)
        single = Spans.of(rows, len(keep) + more_texts)
        seen = Spans.even(images, tokens, keep.device)
        at_images, firsts_at_images = (Spans.of(of, images).rounded(GROUP) for of in (owners[texts], owners))
        return cls(
            ids=F.pad(ids[keep], (0, more_tokens)),
            positions=F.pad(positions, (0, more_tokens)),
            owners=F.pad(owners, (0, more_texts)),
            starts=F.pad(torch.searchsorted(texts, rows), (0, more_texts)),
            tokens=Grouping(Varlen(whole, whole), Varlen(at_images, seen)),
            firsts=Grouping(Varlen(single, whole), Varlen(firsts_at_images, seen)),
        )

    @staticmethod
    def _real_tokens(keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the indices of the texts (R,), and for each real token its text (T,) and its position there (T,)."""
        texts, positions = keep.nonzero().unbind(1)
        return torch.arange(len(keep), device=keep.device), texts, positions

    def to(self, device: torch.device) -> "UnpaddedTexts":
        """Return the same on a device, without waiting for it."""
        leaves, form = tree_flatten(self)
        there = [send(leaf, device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tree_unflatten(there, form)  # type: ignore[no-any-return]
