"""Captions being written: what each has so far, and the step to the logits of its next token.

Shapes: B images, R = B * n captions (those of an image next to each other), P prompt tokens,
T the most tokens of a caption with the prompt, L new tokens, D width, H heads, K = D // H, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from capfilt.med.attention import KeysValues, SelfCache
from capfilt.med.ragged import Padding
from capfilt.med.text import TextStack

MAX_OPEN = 0.75  # finished rows are dropped when at most this share of the rows is still open; earlier it does not pay


class TextDecoder(Protocol):
    """A model that writes: MED captions, VQA answers."""

    @property
    def text(self) -> TextStack:
        """The stack that decodes."""


class Generated(NamedTuple):
    """Captions as token ids."""

    ids: Tensor  # int64 (R, T), prompt first, 0 ([PAD]) after the end token
    logprobs: Tensor  # float32 (R,), summed over the generated tokens, the end token included; nats


@dataclass(slots=True)
class DecodingState:
    """The captions being written: r of the R rows, belonging to b of the B images.

    Each step writes its own column and reads only earlier ones, so repeating a step changes nothing.
    """

    image: list[KeysValues]  # of b images
    caches: list[SelfCache]
    ids: Tensor  # int64 (r, T), prompt first, 0 ([PAD]) after the end token
    logprobs: Tensor  # float32 (r, T), of each token; 0 for those that were not generated
    done: Tensor  # bool (r, T), True from the end token on
    noise: Tensor | None  # float64 (r, T)
    rows: Tensor  # int64 (r,), the index of each among all R captions
    owners: Tensor  # int64 (r,), the image of each
    left: Generated | None = None  # all R captions, final for those whose rows were dropped; None before any was
    groups: Padding | None = None  # of the rows within their images; None while all images have equally many
    fixed: bool = False  # its shape must not change

    @classmethod
    def of(
        cls, image: list[KeysValues], caches: list[SelfCache], ids: Tensor, noise: Tensor | None, fixed: bool
    ) -> "DecodingState":
        """Return captions that hold only their prompt: ids (R, T), 0 after it."""
        rows = torch.arange(len(ids), device=ids.device)  # (R,)
        logprobs, done = (torch.zeros_like(ids, dtype=kind) for kind in (torch.float32, torch.bool))
        owners = rows // (len(ids) // len(image[0][0]))  # (R,)
        return cls(image, caches, ids, logprobs, done, noise, rows, owners, fixed=fixed)

    def write(self, token: Tensor, step: int, logprob: Tensor, end: int) -> None:
        """Write the token (r,) of a step and its log-probability (r,) to the unfinished captions."""
        done = self.done[:, step - 1]  # (r,)
        self.logprobs[:, step] = logprob.masked_fill(done, 0.0)
        self.ids[:, step] = token.masked_fill(done, 0)
        self.done[:, step] = done | (token == end)

    def shrink(self, step: int) -> bool:
        """Drop the captions finished before a step if that saves enough, and return whether any is left to write."""
        open_ = (~self.done[:, step - 1]).nonzero().squeeze(1)  # (up to r,), the rows that stay
        if 0 < len(open_) <= MAX_OPEN * len(self.done) and not self.fixed:
            self._keep(open_)
        return len(open_) > 0

    def finish(self) -> Generated:
        """Return all captions, as far as they are written."""
        logprobs = self.logprobs.sum(dim=1)  # (r,)
        if self.left is None:
            return Generated(self.ids.clone(), logprobs)
        self.left.ids[self.rows], self.left.logprobs[self.rows] = self.ids, logprobs
        return self.left

    def _keep(self, rows: Tensor) -> None:
        self.left = self.finish()
        self.ids, self.rows, self.done = self.ids[rows], self.rows[rows], self.done[rows]
        self.logprobs, self.noise = self.logprobs[rows], None if self.noise is None else self.noise[rows]
        for cache in self.caches:
            cache.reorder(rows)
        images, self.owners = torch.unique(self.owners[rows], return_inverse=True)
        if len(images) < len(self.image[0][0]):
            self.image = [(keys[images], values[images]) for keys, values in self.image]
        self.groups = Padding.of(self.owners, len(images))


def prefill(
    model: TextDecoder, image: list[KeysValues], prompt: list[int], rows: int, length: int, seen: Tensor | None = None
) -> tuple[list[SelfCache], Tensor, Tensor]:
    """Read the prompt once for each image.

    Returns:
        Caches for R captions, their ids (R, T) with the prompt and 0 after it, and the logits (R, V) that follow it.
    """
    images = len(image[0][0])
    each = rows // images
    read = model.text.caches(images, len(prompt))
    ids = torch.zeros((rows, length), dtype=torch.long, device=image[0][0].device)  # (R, T)
    for place, token in enumerate(prompt):  # filling in a number does not wait for a GPU
        ids[:, place] = token
    logits = next_logits(model, ids[::each, : len(prompt)], image, read, 0, seen)  # (B, V)
    caches = model.text.caches(rows, length)
    for cache, short in zip(caches, read, strict=True):
        keys, values = (part.repeat_interleave(each, 0) for part in (short.keys, short.values))  # (R, H, P, K) each
        cache.extend((keys, values), 0)
    return caches, ids, logits.repeat_interleave(each, 0)


def next_logits(
    model: TextDecoder,
    ids: Tensor,
    image: list[KeysValues],
    caches: list[SelfCache],
    start: int,
    seen: Tensor | None = None,
    groups: Padding | None = None,
) -> Tensor:
    """Return the logits (R, V) after ids (R, L), the tokens from position start on; the rest as in decode."""
    states = model.text.decode(ids, image, caches, start, seen, groups)  # (R, L, D)
    return model.text.logits(states[:, -1])
