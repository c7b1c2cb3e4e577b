"""Writing captions: nucleus sampling and greedy decoding, token by token.

Shapes: B images, R = B * n captions (those of an image next to each other), P prompt tokens,
T the most tokens of a caption with the prompt, V vocabulary.
Source: BLIP, arXiv 2201.12086, sections 3.3 and 5.1; beam search is in beam.py.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med.attention import KeysValues, SelfCache
from capfilt.med.model import MED
from capfilt.med.ragged import Places
from capfilt.med.sampling import ban, draw, nucleus, penalise
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

    def shrink(self, step: int) -> bool:
        """Let finished captions leave when that saves enough, and return whether any is left to write."""
        if step % LOOK_EVERY[self.done.device.type]:
            return True
        open_ = (~self.done).nonzero().squeeze(1)
        if 0 < len(open_) <= WORTH * len(self.done):
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


class Written(NamedTuple):
    """Captions as token ids."""

    ids: Tensor  # int64 (R, T), prompt first, 0 ([PAD]) behind the end token
    logprobs: Tensor  # float32 (R,), summed over the generated tokens, the end token included; nats


@torch.inference_mode()
def sample(
    model: Writer, image: list[KeysValues], prompt: list[int], end: int, settings: Sampling, noise: Tensor | None = None
) -> Written:
    """Write captions by nucleus sampling, or greedily when noise is None.

    Args:
        model: with a decoder.
        image: cross-attention keys and values of B images, from model.project_image.
        prompt: ids that every caption starts with, [DEC] first.
        end: id of the end token, [SEP].
        settings: lengths count the prompt.
        noise: float64 (R, T) in [0, 1), one number for each draw.
    """
    each = settings.captions if noise is not None else 1
    draft, logits = begin(model, image, prompt, each, settings.max_length)  # logits (R, V)
    written = Written(draft.ids.clone(), logits.new_zeros(len(logits)))
    for step in range(len(prompt), settings.max_length):
        scores = penalise(logits, draft.ids[:, :step], settings.repetition_penalty)  # (r, V)
        if step < settings.min_length:
            scores = ban(scores, end)
        if noise is None:
            token = scores.argmax(dim=1)  # (r,)
        else:
            chances = nucleus(scores / settings.temperature, settings.top_k, settings.top_p)
            token = draw(*chances, noise[draft.rows, step])  # (r,)
        gained = logits.gather(1, token[:, None]).squeeze(1) - logits.logsumexp(dim=1)  # (r,)
        written.logprobs[draft.rows] += gained.masked_fill(draft.done, 0.0)
        draft.ids[:, step] = token.masked_fill(draft.done, 0)
        written.ids[draft.rows, step] = draft.ids[:, step]
        draft.done |= token == end
        if step + 1 == settings.max_length or not draft.shrink(step):
            break
        last = draft.ids[:, step : step + 1]  # (r, 1)
        logits = next_logits(model, last, draft.image, draft.caches, step, places=draft.places)  # (r, V)
    return written


@torch.inference_mode()
def logprobs(model: MED, image: list[KeysValues], ids: Tensor, prompt: int, end: int) -> Tensor:
    """Return the log-probability, float32 (R,), of ids (R, T) from the prompt to the end token, in nats."""
    logits = model.decode(ids[:, :-1], image).float()  # (R, T - 1, V)
    each = logits.log_softmax(dim=2).gather(2, ids[:, 1:, None]).squeeze(2)  # (R, T - 1)
    ends = (ids[:, prompt:] == end).long()  # (R, T - P)
    return each[:, prompt - 1 :].masked_fill(ends.cumsum(dim=1) > ends, 0.0).sum(dim=1)


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
