"""How texts that are read, and not written, are laid out: as one list of their real tokens, and where each token looks.

Shapes: B images, R texts, T real tokens of all of them, L tokens of the longest.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from capfilt.med.gpu import send
from capfilt.med.ragged import Listed, Places, Spans

LIST, TEXTS, GROUP = 512, 128, 128  # a list of tokens, one of texts, and a group have a multiple of so many


class Layout(NamedTuple):
    """Where the tokens of a list look: each in its text, and at its image beside the image's other tokens."""

    texts: Places | Listed  # of R texts
    images: Places | Listed  # of B images
    mask: Tensor | None = None  # bool (R, 1, 1, L), True for the real tokens of each text; for places


class Reading(NamedTuple):
    """How texts are read as a list of their T real tokens, of which the last block needs the R first ones alone.

    It lies out where each token looks: in padded rectangles or, for a GPU that needs no padding, in lists.
    """

    ids: Tensor  # int64 (T,)
    positions: Tensor  # int64 (T,), in the text
    owners: Tensor  # int64 (R,), the image of each text
    starts: Tensor  # int64 (R,), places of the first tokens in the list
    tokens: Layout
    firsts: Layout

    @classmethod
    def of(cls, ids: Tensor, keep: Tensor, owners: Tensor, images: int) -> "Reading":
        """Lay out texts in rectangles.

        Args:
            ids: int64 (R, L).
            keep: bool (R, L), True for real tokens.
            owners: int64 (R,), the image of each text, not decreasing.
            images: B.
        """
        rows, texts, places = cls._list(keep)
        inner = Places.of(texts, len(keep))
        mask = keep[:, None, None, : inner.width]  # (R, 1, 1, L)
        tokens = Layout(inner, Places.of(owners[texts], images), mask)
        firsts = Layout(Places.of(rows, len(keep)), Places.of(owners, images), mask)
        return cls(ids[keep], places, owners, torch.searchsorted(texts, rows), tokens, firsts)

    @classmethod
    def listed(cls, ids: Tensor, keep: Tensor, owners: Tensor, images: int, tokens: int) -> "Reading":
        """Lay out texts in lists, of images of so many tokens; the rest as in of.

        Lists and their longest groups are brought to round lengths, so that few different ones are met. What is added
        belongs to no group, and what is made of it says nothing.
        """
        rows, texts, places = cls._list(keep)
        more_tokens, more_texts = -len(texts) % LIST, -len(keep) % TEXTS
        whole = Spans.of(texts, len(keep) + more_texts).rounded(GROUP)
        single = Spans.of(rows, len(keep) + more_texts)
        seen = Spans.even(images, tokens, keep.device)
        at_images, firsts_at_images = (Spans.of(of, images).rounded(GROUP) for of in (owners[texts], owners))
        return cls(
            ids=F.pad(ids[keep], (0, more_tokens)),
            positions=F.pad(places, (0, more_tokens)),
            owners=F.pad(owners, (0, more_texts)),
            starts=F.pad(torch.searchsorted(texts, rows), (0, more_texts)),
            tokens=Layout(Listed(whole, whole), Listed(at_images, seen)),
            firsts=Layout(Listed(single, whole), Listed(firsts_at_images, seen)),
        )

    @staticmethod
    def _list(keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the numbers of texts (R,), and of each real token its text (T,) and its place in that (T,)."""
        texts, places = keep.nonzero().unbind(1)
        return torch.arange(len(keep), device=keep.device), texts, places

    def to(self, device: torch.device) -> "Reading":
        """Return the same on a device, which is not waited for."""
        leaves, form = tree_flatten(self)
        there = [send(leaf, device) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return tree_unflatten(there, form)  # type: ignore[no-any-return]
