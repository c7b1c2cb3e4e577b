"""Rows of a ragged batch, without padding for what works row by row and with it for attention.

Texts differ in length, and most of their arithmetic is in linear layers that look at one token at a time. So the real
tokens travel as one list, and are laid out in a rectangle only where they look at each other or at an image. A GPU does
without: there it is enough to tell where groups begin and end.

Shapes: T rows of the list, G groups, W places of a group, D width.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Places(NamedTuple):
    """Where each row of a list stands in a rectangle of groups."""

    flat: Tensor  # int64 (T,), place in the flat rectangle
    groups: int
    width: int

    @classmethod
    def of(cls, owners: Tensor, groups: int) -> Self:
        """Give each row a place in its group, next to those before it; owners, int64 (T,), is not decreasing."""
        counts = torch.bincount(owners, minlength=groups)  # (G,)
        width = int(counts.max())
        before = counts.cumsum(0) - counts  # (G,)
        flat = torch.arange(len(owners), device=owners.device) - before[owners] + owners * width  # (T,)
        return cls(flat, groups, width)

    def pad(self, rows: Tensor) -> Tensor:
        """Lay rows (T, D) out, (G, W, D), with zeros in between."""
        if len(rows) == self.groups * self.width:  # nothing in between
            return rows.view(self.groups, self.width, -1)
        padded = rows.new_zeros(self.groups * self.width, rows.shape[1])  # (G W, D)
        return padded.index_copy_(0, self.flat, rows).view(self.groups, self.width, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """List the rows (T, D) of a rectangle (G, W, D)."""
        rows = padded.reshape(self.groups * self.width, -1)  # (G W, D)
        return rows if len(rows) == len(self.flat) else rows[self.flat]


class Spans(NamedTuple):
    """Where each of G groups begins and ends in a list."""

    cu_seqlens: Tensor  # int32 (G + 1,)
    max_seqlen: int  # rows of a group

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
        return self._replace(max_seqlen=-(-self.max_seqlen // step) * step)


class Listed(NamedTuple):
    """Where groups of queries lie in their list, and the groups of what they look at in theirs: nothing is padded."""

    queries: Spans
    seen: Spans
