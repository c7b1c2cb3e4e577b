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
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.config.sizes import TextConfig
from capfilt.med.attention import Attention, KeysValues, SelfCache
from capfilt.med.ragged import Padding
from capfilt.med.residual import post_norm
from capfilt.med.unpadded import Grouping, UnpaddedTexts


class Mlp(nn.Module):
    """The feed-forward half of a block, then residual and norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_width)
        self.act = nn.GELU()
        self.down = nn.Linear(config.mlp_width, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (R, L, D) to (R, L, D)."""
        return post_norm(x, self.dropout(self.down(self.act(self.up(x)))), self.norm)


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
        q, text = self.encoder_attn.project_all(x)
        x = self.encoder_attn(x, text, mask, q=q)  # (R, L, D)
        if image is not None:
            x = self.cross_attn(x, image)  # (R, L, D)
        return self.mlp(x)  # type: ignore[no-any-return]

    def encode_unpadded(
        self, x: Tensor, q: Tensor, text: KeysValues, image: KeysValues | None, grouping: Grouping
    ) -> Tensor:
        """Map x (T, D), some of the tokens, to (T, D), as encode does but without padding.

        q are the queries of x, text the keys and values of all tokens.
        """
        x = self.encoder_attn(x, text, grouping.mask, groups=grouping.texts, q=q)  # (T, D)
        if image is not None:
            x = self.cross_attn(x, image, groups=grouping.images)  # (T, D)
        return self.mlp(x)  # type: ignore[no-any-return]

    def decode(
        self,
        x: Tensor,
        image: KeysValues,
        cache: SelfCache | None,
        start: int,
        seen: Tensor | None = None,
        groups: Padding | None = None,
    ) -> Tensor:
        """Map x (R, L, D), the tokens from position start on, to (R, L, D); seen (B, 1, 1, M) masks the image."""
        x = self.decoder_attn.go_on(x, cache, start)  # (R, L, D)
        return self.mlp(self.cross_attn(x, image, seen, groups=groups))  # type: ignore[no-any-return]


class Embeddings(nn.Module):
    """Word plus learned position, then norm; BERT's token types are not used by BLIP."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, ids: Tensor, start: int = 0) -> Tensor:
        """Return the embeddings (R, L, D) of ids (R, L), whose first token is at position start."""
        end = start + ids.shape[1]
        if end > self.positions.num_embeddings:
            raise ValueError(f"text has {end} tokens, the model takes {self.positions.num_embeddings}; truncate it")
        x = self.words(ids) + self.positions.weight[start:end]  # (R, L, D)
        return self.dropout(self.norm(x))  # type: ignore[no-any-return]

    def at(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return the embeddings (T, D) of a list of ids (T,), each with its own position (T,)."""
        return self.dropout(self.norm(self.words(ids) + self.positions(positions)))  # type: ignore[no-any-return]


class LanguageHead(nn.Module):
    """Scores every word as the next token; the output matrix is that of the word embedding."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.act = nn.GELU()
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.words: nn.Module | None = None  # the output matrix in a faster form, for inference

    def forward(self, x: Tensor, words: Tensor) -> Tensor:
        """Map x (..., D) and the word embeddings (V, D) to logits (..., V)."""
        x = self.norm(self.act(self.dense(x)))  # (..., D)
        return F.linear(x, words, self.bias) if self.words is None else self.words(x)


class TextStack(nn.Module):
    """Embeddings, blocks and language head, with the three modes as three methods."""

    def __init__(self, config: TextConfig, image_width: int, encoder: bool, decoder: bool) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.blocks = nn.ModuleList(TextBlock(config, image_width, encoder, decoder) for _ in range(config.depth))
        if decoder:
            self.head = LanguageHead(config)

    def project_image(self, image: Tensor) -> list[KeysValues]:
        """Return each block's keys and values of image tokens (B, M, D_image), once for all texts of an image."""
        projected = [block.cross_attn.project(image) for block in self._blocks()]
        if torch.is_inference_mode_enabled() and not image.is_cuda:  # read at every step: laid out once, head by head
            return [(keys.contiguous(), values.contiguous()) for keys, values in projected]
        return projected

    def encode(self, ids: Tensor, keep: Tensor, image: list[KeysValues] | None = None) -> Tensor:
        """Return the last states (R, L, D) of ids (R, L): mode "text" without an image, "match" with one.

        keep (R, L), bool, is True for real tokens.
        """
        mask = keep[:, None, None, :]  # (R, 1, 1, L)
        x: Tensor = self.embeddings(ids)  # (R, L, D)
        for layer, block in enumerate(self._blocks()):
            x = block.encode(x, mask, image[layer] if image else None)  # (R, L, D)
        return x

    def first_states(self, texts: UnpaddedTexts, image: list[KeysValues] | None = None) -> Tensor:
        """Return the last state of each text's first token, (R, D), as encode does, but without computing the padding.

        The last block computes the first tokens only.

        Args:
            texts: of R texts, on this device.
            image: keys and values of the images that they belong to; None for mode "text".
        """
        x: Tensor = self.embeddings.at(texts.ids, texts.positions)  # (T, D)
        for layer, block in enumerate(self._blocks()):
            last = layer + 1 == len(self.blocks)
            rows, grouping = (texts.starts, texts.firsts) if last else (None, texts.tokens)
            q, text = block.encoder_attn.project_all(x, texts.tokens.texts, rows)
            seen = image[layer] if image else None
            x = block.encode_unpadded(x if rows is None else x[rows], q, text, seen, grouping)  # (T, D)
        return x

    def decode(
        self,
        ids: Tensor,
        image: list[KeysValues],
        caches: list[SelfCache] | None = None,
        start: int = 0,
        seen: Tensor | None = None,
        groups: Padding | None = None,
    ) -> Tensor:
        """Return the last states (R, L, D) of ids (R, L) in mode "decode".

        With caches, ids are the tokens from position start on, after those already cached: any number
        at the start, one at a time later. seen, bool (B, M), is True for the context tokens that may be
        looked at; None allows all. groups, where images have different numbers of rows, says which rows, of
        one token each, belong to which image.
        """
        if start and ids.shape[1] > 1:
            raise ValueError(f"{ids.shape[1]} tokens at position {start}; after the first call give one at a time")
        mask = None if seen is None else seen[:, None, None, :]  # (B, 1, 1, M)
        x: Tensor = self.embeddings(ids, start)  # (R, L, D)
        for layer, block in enumerate(self._blocks()):
            x = block.decode(x, image[layer], caches[layer] if caches else None, start, mask, groups)  # (R, L, D)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """Map states (..., D) of mode "decode" to the logits (..., V) of the next token."""
        return self.head(x, self.embeddings.words.weight)  # type: ignore[no-any-return]

    def caches(self, rows: int, length: int) -> list[SelfCache]:
        """Return empty caches, one for each block, for rows captions of at most length tokens."""
        words = self.embeddings.words.weight
        heads = next(self._blocks()).cross_attn.heads
        shape = (rows, heads, length, words.shape[1] // heads)
        return [SelfCache(words.new_empty(shape), words.new_empty(shape)) for _ in self.blocks]

    def _blocks(self) -> Iterator[TextBlock]:
        return iter(cast("Sequence[TextBlock]", self.blocks))
