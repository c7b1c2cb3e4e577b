"""The text half of MED: one stack of blocks, read in three ways.

    mode      self-attention   cross-attention   first token   trained by
    "text"    bidirectional    no                [CLS]         ITC
    "match"   bidirectional    yes               [ENC]         ITM
    "decode"  causal           yes               [DEC]         LM

The image may be any context: the answers of VQA are decoded from the states of their question.

Shapes: B images, R rows of text (R = B times the texts of an image, the texts of an image next
to each other), L text tokens, M image tokens, D width, H heads, K = D // H, V vocabulary.
Source: BLIP, arXiv 2201.12086, section 3.1 and figure 2; the blocks are BERT's (arXiv 1810.04805).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.med.config import TextConfig

Mode = Literal["text", "match", "decode"]
KeysValues = tuple[Tensor, Tensor]  # each (B, H, M, K)


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

    def project(self, context: Tensor) -> KeysValues:
        """Return the keys and values of context (B, M, D_context)."""
        return self._split(self.key(context)), self._split(self.value(context))  # (B, H, M, K) each

    def attend(self, x: Tensor, context: KeysValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Return what x (R, L, D) sees in the context, (R, L, D); R may be a multiple of the context's B.

        Rows that share a context are folded into its query length, so that the keys and values of
        an image are never copied for its texts.
        """
        keys, values = context
        q = self._split(self.query(x).view(len(keys), -1, x.shape[-1]))  # (B, H, R / B * L, K)
        dropout = self.attention_dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, keys, values, mask, dropout, is_causal=causal)  # (B, H, R / B * L, K)
        return self.out(y.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]  # (R, L, D)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, L, D) -> (B, H, L, K)


class Attention(Heads):
    """Multi-head attention, then residual and norm, as in BERT."""

    def __init__(self, config: TextConfig, context_width: int) -> None:
        super().__init__(config, context_width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: KeysValues, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Map x (R, L, D) to (R, L, D); arguments as in attend."""
        return self.norm(x + self.dropout(self.attend(x, context, mask, causal)))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """The feed-forward half of a block, then residual and norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width)
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (R, L, D) to (R, L, D)."""
        return self.norm(x + self.dropout(self.down(F.gelu(self.up(x)))))  # type: ignore[no-any-return]


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


class TextBlock(nn.Module):
    """A transformer block with two self-attentions and one of everything else.

    Understanding and generation differ in what a token may look at, so only self-attention is
    doubled. Cross-attention and MLP exist once: the sharing is structural, with no weights to tie
    and none saved twice. A fine-tuned model has only the self-attention that it uses.
    """

    def __init__(self, config: TextConfig, image_width: int, encoder: bool, decoder: bool) -> None:
        super().__init__()
        if encoder:
            self.encoder_attn = Attention(config, config.width)
        if decoder:
            self.decoder_attn = Attention(config, config.width)
        self.cross_attn = Attention(config, image_width)
        self.mlp = Mlp(config)

    def encode(self, x: Tensor, mask: Tensor, image: KeysValues | None) -> Tensor:
        """Map x (R, L, D) to (R, L, D); mask (R, 1, 1, L) marks real tokens; without image, text alone."""
        x = self.encoder_attn(x, self.encoder_attn.project(x), mask)  # (R, L, D)
        if image is not None:
            x = self.cross_attn(x, image)  # (R, L, D)
        return self.mlp(x)  # type: ignore[no-any-return]

    def decode(
        self, x: Tensor, image: KeysValues, cache: SelfCache | None, start: int, seen: Tensor | None = None
    ) -> Tensor:
        """Map x (R, L, D), the tokens from position start on, to (R, L, D); seen (B, 1, 1, M) masks the image."""
        new = self.decoder_attn.project(x)
        written = cache.extend(new, start) if cache else new
        # Captions are padded on the right, behind every real token, so causality alone hides the padding.
        # A single new token may see all that came before it and needs no mask.
        x = self.decoder_attn(x, written, causal=x.shape[1] > 1)  # (R, L, D)
        return self.mlp(self.cross_attn(x, image, seen))  # type: ignore[no-any-return]


class Embeddings(nn.Module):
    """Word plus learned position, then norm; BERT's token types are not used by BLIP."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """Return the embeddings (R, L, D) of ids (R, L), whose first token stands at position start."""
        end = start + ids.shape[1]
        if end > self.positions.num_embeddings:
            raise ValueError(f"text has {end} tokens, the model takes {self.positions.num_embeddings}; truncate it")
        x = self.words(ids) + self.positions.weight[start:end]  # (R, L, D)
        return self.dropout(self.norm(x))  # type: ignore[no-any-return]


class LanguageHead(nn.Module):
    """Scores of every word for the next token; the output matrix is the word embedding's."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """Map x (..., D) and the word embeddings (V, D) to logits (..., V)."""
        return F.linear(self.norm(F.gelu(self.dense(x))), words, self.bias)


class TextStack(nn.Module):
    """Embeddings, blocks and language head, with the three modes as three methods."""

    def __init__(self, config: TextConfig, image_width: int, encoder: bool, decoder: bool) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(TextBlock(config, image_width, encoder, decoder) for _ in range(config.depth))
        if decoder:
            self.head = LanguageHead(config)

    def project_image(self, image: Tensor) -> list[KeysValues]:
        """Return each block's keys and values of image tokens (B, M, D_image): once for all texts of an image."""
        return [block.cross_attn.project(image) for block in self._blocks()]

    def encode(self, ids: Tensor, keep: Tensor, image: list[KeysValues] | None = None) -> Tensor:
        """Return the last states (R, L, D) of ids (R, L): mode "text" without an image, "match" with one.

        keep (R, L), bool, is True for real tokens.
        """
        mask = keep[:, None, None, :]  # (R, 1, 1, L)
        x: Tensor = self.embeddings(ids)  # (R, L, D)
        for layer, block in enumerate(self._blocks()):
            x = block.encode(x, mask, image[layer] if image else None)  # (R, L, D)
        return x

    def decode(
        self,
        ids: Tensor,
        image: list[KeysValues],
        caches: list[SelfCache] | None = None,
        start: int = 0,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Return the last states (R, L, D) of ids (R, L) in mode "decode".

        With caches, ids are the tokens from position start on, after those already cached: any number
        at the start, one at a time later. seen (B, M), bool, is True for the tokens of the context that
        may be looked at; without it, all of them.
        """
        if start and ids.shape[1] > 1:
            raise ValueError(f"{ids.shape[1]} tokens at position {start}; after the first call give one at a time")
        mask = None if seen is None else seen[:, None, None, :]  # (B, 1, 1, M)
        x: Tensor = self.embeddings(ids, start)  # (R, L, D)
        for layer, block in enumerate(self._blocks()):
            x = block.decode(x, image[layer], caches[layer] if caches else None, start, mask)  # (R, L, D)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Map states (..., D) of mode "decode" to the logits (..., V) of the next token."""
        return self.head(x, self.embeddings.words.weight)  # type: ignore[no-any-return]

    def caches(self, rows: int, length: int) -> list[SelfCache]:
        """Return empty caches, one for each block, for rows captions of at most length tokens."""
        words = self.embeddings.words.weight
        heads = next(self._blocks()).cross_attn.heads
        shape = (rows, heads, length, words.shape[1] // heads)
        return [SelfCache(words.new_zeros(shape), words.new_zeros(shape)) for _ in self.blocks]

    def _blocks(self) -> Iterator[TextBlock]:
        return iter(cast("Sequence[TextBlock]", self.blocks))
