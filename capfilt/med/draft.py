"""Captions that are being written: what each has so far, and the step to the logits of its next token.

Shapes: B images, R = B * n captions (those of an image next to each other), P prompt tokens,
T the most tokens of a caption with the prompt, L new tokens, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from capfilt.med.attention import KeysValues, SelfCache
from capfilt.med.ragged import Places
from capfilt.med.text import TextStack

WORTH = 0.75  # share of the rows that may be left for the move to pay
LOOK_EVERY = {"cpu": 1, "cuda": 4}  # steps; a look makes the processor wait for the GPU


class Writer(Protocol):
    """A model that writes: MED captions, VQA answers."""

    @property
    def text(self) -> TextStack:
        """The stack that decodes."""


@dataclass(slots=True)
class Draft:
    """The captions that are being written: r of the R rows, those of b of the B images."""

    image: list[KeysValues]  # of b images
    caches: list[SelfCache]
    ids: Tensor  # int64 (r, T), prompt first, 0 ([PAD]) behind the end token
    rows: Tensor  # int64 (r,), the place of each among all captions
    owners: Tensor  # int64 (r,), the image of each
    done: Tensor  # bool (r,)
    places: Places | None = None  # of the rows among their image's; None while these are equally many
    fixed: bool = False  # its shape must not change

    def shrink(self, step: int) -> bool:
        """Let finished captions leave when that saves enough, and return whether any is left to write."""
        if step % LOOK_EVERY[self.done.device.type]:
            return True
        open_ = (~self.done).nonzero().squeeze(1)
        if 0 < len(open_) <= WORTH * len(self.done) and not self.fixed:
            self._keep(open_)
        return len(open_) > 0

    def _keep(self, rows: Tensor) -> None:
        self.ids, self.rows, self.done = self.ids[rows], self.rows[rows], self.done[rows]
        for cache in self.caches:
            cache.reorder(rows)
        images, self.owners = torch.unique(self.owners[rows], return_inverse=True)
        if len(images) < len(self.image[0][0]):
            self.image = [(keys[images], values[images]) for keys, values in self.image]
        self.places = Places.of(self.owners, len(images))


def begin(model: Writer, image: list[KeysValues], prompt: list[int], each: int, length: int) -> tuple[Draft, Tensor]:
    """Return captions of at most length tokens that hold the prompt, and the logits (R, V) after it."""
    rows = len(image[0][0]) * each
    caches, logits = prefill(model, image, prompt, rows, length)
    ids = logits.new_zeros((rows, length), dtype=torch.long)  # (R, T)
    ids[:, : len(prompt)] = torch.tensor(prompt, device=ids.device)
    numbers = torch.arange(rows, device=ids.device)  # (R,)
    return Draft(image, caches, ids, numbers, numbers // each, torch.zeros_like(numbers, dtype=torch.bool)), logits


def prefill(
    model: Writer, image: list[KeysValues], prompt: list[int], rows: int, length: int, seen: Tensor | None = None
) -> tuple[list[SelfCache], Tensor]:
    """Read the prompt once for each image, and return caches for rows captions and the logits (R, V) after it."""
    images = len(image[0][0])
    caches = model.text.caches(images, length)
    ids = torch.tensor([prompt] * images, device=image[0][0].device)  # (B, P)
    logits = next_logits(model, ids, image, caches, 0, seen)  # (B, V)
    spread = torch.arange(images, device=logits.device).repeat_interleave(rows // images)  # (R,)
    for cache in caches:
        cache.reorder(spread)
    return caches, logits[spread]


def next_logits(
    model: Writer,
    ids: Tensor,
    image: list[KeysValues],
    caches: list[SelfCache],
    start: int,
    seen: Tensor | None = None,
    places: Places | None = None,
) -> Tensor:
    """Return the logits (R, V), float32, after ids (R, L), the tokens from position start on; the rest as in decode."""
    states = model.text.decode(ids, image, caches, start, seen, places)  # (R, L, D)
    return model.text.logits(states[:, -1]).float()
