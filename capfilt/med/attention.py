"""Attention: the heads of MED's text blocks, their cache, and the kernel that is fastest where they run.

Shapes: B groups of rows that look at one context (an image, a text), R rows of text, L tokens of a row, T tokens listed
without padding, Q queries of a group, M context tokens, D width, H heads, K = D // H.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.med.config import TextConfig
from capfilt.med.ragged import Places

KeysValues = tuple[Tensor, Tensor]  # each (B, H, M, K)


def attention(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, dropout: float = 0.0, causal: bool = False
) -> Tensor:
    """Return softmax(q keys^T / sqrt(K)) values, (B, H, Q, K).

    Args:
        q: (B, H, Q, K).
        keys: (B, H, M, K).
        values: (B, H, M, K).
        mask: bool, broadcast to (B, H, Q, M), True where a query may look.
        dropout: of the attention weights.
        causal: a query looks at keys up to its own place; Q = M.
    """
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and not dropout:
        # torch's fused kernel takes up to four times as long there, for one query and for many.
        scores = (q * q.shape[-1] ** -0.5) @ keys.transpose(2, 3)  # (B, H, Q, M)
        if causal:
            mask = torch.ones(scores.shape[2:], dtype=torch.bool).tril()  # (Q, M)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1) @ values  # type: ignore[no-any-return]
    return F.scaled_dot_product_attention(q, keys, values, mask, dropout, is_causal=causal)


class Heads(nn.Module):
    """Multi-head attention over keys and values projected before."""

    def __init__(self, config: TextConfig, context_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(context_width, config.width)
        self.value = nn.Linear(context_width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.attention_dropout = config.dropout

    def project(self, context: Tensor, places: Places | None = None) -> KeysValues:
        """Return the keys and values of context (B, M, D_context), or of a list (T, D_context) in its places."""
        keys, values = self.key(context), self.value(context)  # (B, M, D) each
        if places is not None:
            keys, values = places.pad(keys), places.pad(values)
        return self._split(keys), self._split(values)  # (B, H, M, K) each

    def attend(
        self,
        x: Tensor,
        context: KeysValues,
        mask: Tensor | None = None,
        causal: bool = False,
        places: Places | None = None,
    ) -> Tensor:
        """Return what x (R, L, D) sees in the context, (R, L, D); R may be a multiple of the context's B.

        Rows that share a context are folded into its query length, so that the keys and values of
        an image are never copied for its texts. With places they need not be equally many an image: x is
        (T, D) then, or (T, 1, D), and so is the result.
        """
        keys, values = context
        q = self.query(x)
        q = q.view(len(keys), -1, q.shape[-1]) if places is None else places.pad(q.flatten(0, -2))  # (B, Q, D)
        dropout = self.attention_dropout if self.training else 0.0
        y = attention(self._split(q), keys, values, mask, dropout, causal)  # (B, H, Q, K)
        y = y.transpose(1, 2).flatten(2)  # (B, Q, D)
        return self.out((y if places is None else places.pack(y)).view(x.shape))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, L, D) -> (B, H, L, K)


class Attention(Heads):
    """Multi-head attention, then residual and norm, as in BERT."""

    def __init__(self, config: TextConfig, context_width: int) -> None:
        super().__init__(config, context_width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        context: KeysValues,
        mask: Tensor | None = None,
        causal: bool = False,
        places: Places | None = None,
    ) -> Tensor:
        """Map x (R, L, D) to (R, L, D), or (T, D) to (T, D); arguments as in attend."""
        seen = self.attend(x, context, mask, causal, places)
        return self.norm(x + self.dropout(seen))  # type: ignore[no-any-return]


@dataclass(slots=True)
class SelfCache:
    """The keys and values of the tokens a decoder block has seen, with room for the longest caption."""

    keys: Tensor  # (R, H, L_max, K)
    values: Tensor  # (R, H, L_max, K)

    def extend(self, new: KeysValues, start: int) -> KeysValues:
        """Write the keys and values of the tokens from position start on, and return those of all so far."""
        end = start + new[0].shape[2]
        self.keys[:, :, start:end], self.values[:, :, start:end] = new
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Let row i continue what row rows[i] has seen; rows is (R,)."""
        self.keys, self.values = self.keys[rows], self.values[rows]
