"""Rows of a ragged batch: unpadded for what works row by row, padded for attention.

Texts differ in length, and most of their arithmetic is in linear layers that look at one token at a time. So the real
tokens are kept as one list, and laid out in a rectangle only for attention to each other or to an image. A GPU needs no
rectangle: there it is enough to say where each group begins and ends.

Shapes: T rows of the list, G groups, W places of a group, D width.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor


class Padding(NamedTuple):
    """The place of each row of a list in a rectangle of its groups, padded to equal length."""

    flat: Tensor  # int64 (T,), index in the flattened rectangle
    groups: int
    width: int

    @classmethod
    def of(cls, owners: Tensor, groups: int) -> Self:
        """Place each row after those before it in its group; owners, int64 (T,), names the groups, non-decreasing."""
        counts = torch.bincount(owners, minlength=groups)  # (G,)
        width = int(counts.max())
        before = counts.cumsum(0) - counts  # (G,)
        flat = torch.arange(len(owners), device=owners.device) - before[owners] + owners * width  # (T,)
        return cls(flat, groups, width)

    def pad(self, rows: Tensor) -> Tensor:
        """Lay out rows (T, D) as (G, W, D), padded with zeros."""
        if len(rows) == self.groups * self.width:  # nothing to pad
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
    max_seqlen: int  # rows of the longest group

    @classmethod
    def of(cls, owners: Tensor, groups: int) -> Self:
        """Return where groups lie, given the group of each row, owners (T,), non-decreasing; waits for their device."""
        counts = torch.bincount(owners, minlength=groups)  # (G,)
        return cls(torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int(), int(counts.max()))

    @classmethod
    def even(cls, groups: int, rows: int, device: torch.device) -> Self:
        """Return where groups of `rows` rows each lie."""
        return cls(torch.arange(0, (groups + 1) * rows, rows, dtype=torch.int32, device=device), rows)

    def rounded(self, step: int) -> Self:
        """Return the same, with max_seqlen rounded up to a multiple of a step."""
        return self._replace(max_seqlen=-(-self.max_seqlen // step) * step)


class Varlen(NamedTuple):
    """Where groups of queries and the groups of keys that they look at lie, for attention of variable lengths."""

    queries: Spans
    seen: Spans
