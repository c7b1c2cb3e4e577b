"""Attention: the heads of MED's text blocks, their cache, and the kernel that is fastest where they run.

Shapes: B contexts (an image, a text), each with a group of rows that attend to it, R rows of text, L tokens of a row,
T tokens listed without padding, Q queries of a group, M context tokens, S of them listed, D width, H heads, K = D // H.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.config.sizes import TextConfig
from capfilt.med.cpu import MATRIX_UNITS
from capfilt.med.gpu import few_suit, heads_suit, varlen_attention
from capfilt.med.ragged import Padding, Varlen
from capfilt.med.residual import post_norm

KeysValues = tuple[Tensor, Tensor]  # each (B, H, M, K)
FEW_QUERIES = 64  # the most queries of an image for which a GPU uses a kernel of its own


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
        causal: a query may look only at keys up to its own position; Q = M.
    """
    fused = dropout or (MATRIX_UNITS and not torch.is_grad_enabled())
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and not fused:
        # In bfloat16 on a CPU, torch's fused kernel takes up to four times as long, for one query and for many. With
        # matrix units it takes half as long in inference, but not in training, with the backward pass.
        scores = (q * q.shape[-1] ** -0.5) @ keys.transpose(2, 3)  # (B, H, Q, M)
        if causal:
            mask = torch.ones(scores.shape[2:], dtype=torch.bool).tril()  # (Q, M)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return scores.softmax(dim=-1) @ values  # type: ignore[no-any-return]
    return F.scaled_dot_product_attention(q, keys, values, mask, dropout, is_causal=causal)


class Heads(nn.Module):
    """Multi-head attention over keys and values that were projected beforehand."""

    def __init__(self, config: TextConfig, context_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(context_width, config.width)
        self.value = nn.Linear(context_width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.attention_dropout = config.dropout
        self.joint: nn.Module | None = None  # query, key and value as one product, for inference

    def project(self, context: Tensor) -> KeysValues:
        """Return the keys and values of context (B, M, D_context)."""
        return self._split(self.key(context)), self._split(self.value(context))  # (B, H, M, K) each

    def project_all(
        self, x: Tensor, groups: Padding | Varlen | None = None, rows: Tensor | None = None
    ) -> tuple[Tensor, KeysValues]:
        """Return the queries, and the keys and values, of tokens that look at each other.

        Args:
            x: (R, L, D), or a list (T, D), whose keys and values are returned as `groups` says: padded, or as one row.
            groups: how the list is laid out for attention, Padding or Varlen; None for x (R, L, D).
            rows: indices of the listed tokens whose queries are needed; all by default.
        """
        if self.joint is not None:
            q, keys, values = self.joint(x).chunk(3, dim=-1)  # (..., D) each
            q = q if rows is None else q[rows]
        else:
            q, keys, values = self.query(x if rows is None else x[rows]), self.key(x), self.value(x)  # (..., D) each
        if isinstance(groups, Padding):
            keys, values = groups.pad(keys), groups.pad(values)  # (R, L, D) each
        elif groups is not None:
            keys, values = keys[None], values[None]  # (1, T, D) each
        return q, (self._split(keys), self._split(values))

    def attend(
        self,
        q: Tensor,
        context: KeysValues,
        mask: Tensor | None = None,
        causal: bool = False,
        groups: Padding | Varlen | None = None,
    ) -> Tensor:
        """Return the output (R, L, D) of queries q (R, L, D) over the context; R may be a multiple of its B.

        Rows that share a context are folded into the query dimension, so that the keys and values of an
        image are never copied for its texts. With groups, images may have different numbers of rows: q is
        then (T, D) or (T, 1, D), and so is the result. With Varlen no mask is needed: nothing is padded.
        """
        keys, values = context
        if isinstance(groups, Varlen):
            keys, values = (each.transpose(1, 2).flatten(0, 1) for each in context)  # (S, H, K) each
            seen = varlen_attention(q.view(len(q), self.heads, -1), keys, values, groups)  # (T, H, K)
            return self.out(seen.flatten(1))  # type: ignore[no-any-return]  # (T, D)
        queries = q.view(len(keys), -1, q.shape[-1]) if groups is None else groups.pad(q.flatten(0, -2))  # (B, Q, D)
        if mask is None and not causal and queries.shape[1] <= FEW_QUERIES and few_suit(queries, keys):
            from capfilt.med.kernels import attend_few

            y = attend_few(queries.contiguous(), keys, values)  # (B, Q, D)
        else:
            dropout = self.attention_dropout if self.training else 0.0
            y = attention(self._split(queries), keys, values, mask, dropout, causal)  # (B, H, Q, K)
            y = y.transpose(1, 2).flatten(2)  # (B, Q, D)
        return self.out((y if groups is None else groups.pack(y)).view(q.shape))  # type: ignore[no-any-return]

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
        groups: Padding | Varlen | None = None,
        q: Tensor | None = None,
    ) -> Tensor:
        """Map x (R, L, D) to (R, L, D), or (T, D) to (T, D); q are its queries, if computed; the rest as in attend."""
        seen = self.attend(self.query(x) if q is None else q, context, mask, causal, groups)
        return post_norm(x, self.dropout(seen), self.norm)

    def go_on(self, x: Tensor, cache: "SelfCache | None", start: int) -> Tensor:
        """Map x (R, L, D), the tokens from position start on, to (R, L, D); the cache holds those before them."""
        if cache is not None and self.joint is not None and x.shape[1] == 1 and heads_suit(x, cache.keys.shape[-1]):
            from capfilt.med.kernels import attend_last

            seen = attend_last(self.joint(x).squeeze(1), cache.keys, cache.values, start)  # (R, D)
            return post_norm(x, self.out(seen)[:, None], self.norm)  # (R, 1, D)
        q, new = self.project_all(x)
        # Captions are padded on the right, after every real token, so causality alone hides the padding.
        # A single new token may see all that came before it and needs no mask.
        return self(x, cache.extend(new, start) if cache else new, causal=x.shape[1] > 1, q=q)  # type: ignore[no-any-return]


@dataclass(slots=True)
class SelfCache:
    """The keys and values of the tokens a decoder block has seen, with room for the longest caption."""

    keys: Tensor  # (R, H, L_max, K)
    values: Tensor  # (R, H, L_max, K)

    def extend(self, new: KeysValues, start: int) -> KeysValues:
        """Write keys and values, (R, H, L, K) each, of tokens from position start on; return those of all so far."""
        end = start + new[0].shape[2]
        self.keys[:, :, start:end], self.values[:, :, start:end] = new
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """Let row i continue what row rows[i] has seen; rows is (R,)."""
        self.keys, self.values = self.keys[rows], self.values[rows]
