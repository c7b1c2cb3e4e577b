"""Writing captions: nucleus sampling and greedy decoding, token by token.

Shapes: B images, R = B * n captions (those of an image next to each other), P prompt tokens,
T the most tokens of a caption with the prompt, V vocabulary.
Source: BLIP, arXiv 2201.12086, sections 3.3 and 5.1; beam search is in beam.py.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med.model import MED
from capfilt.med.sampling import ban, draw, nucleus, penalise
from capfilt.med.text import KeysValues, SelfCache, TextStack


class Writer(Protocol):
    """A model that writes: MED captions, VQA answers."""

    @property
    def text(self) -> TextStack:
        """The stack that decodes."""


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
    images = len(image[0][0])
    rows = images * (settings.captions if noise is not None else 1)
    caches, logits = prefill(model, image, prompt, rows, settings.max_length)  # logits (R, V)
    ids = logits.new_zeros((rows, settings.max_length), dtype=torch.long)  # (R, T)
    ids[:, : len(prompt)] = torch.tensor(prompt, device=ids.device)
    logprobs, done = logits.new_zeros(rows), logits.new_zeros(rows, dtype=torch.bool)  # (R,), (R,)
    for step in range(len(prompt), settings.max_length):
        scores = penalise(logits, ids[:, :step], settings.repetition_penalty)  # (R, V)
        if step < settings.min_length:
            scores = ban(scores, end)
        if noise is None:
            token = scores.argmax(dim=1)  # (R,)
        else:
            token = draw(*nucleus(scores / settings.temperature, settings.top_k, settings.top_p), noise[:, step])
        gained = logits.log_softmax(dim=1).gather(1, token[:, None]).squeeze(1)  # (R,)
        logprobs = torch.where(done, logprobs, logprobs + gained)
        ids[:, step] = token.masked_fill(done, 0)
        done = done | (token == end)
        if step + 1 == settings.max_length or done.all():
            break
        logits = next_logits(model, ids[:, step : step + 1], image, caches, step)  # (R, V)
    return Written(ids, logprobs)


@torch.inference_mode()
def logprobs(model: MED, image: list[KeysValues], ids: Tensor, prompt: int, end: int) -> Tensor:
    """Return the log-probability, float32 (R,), of ids (R, T) from the prompt to the end token, in nats."""
    logits = model.decode(ids[:, :-1], image).float()  # (R, T - 1, V)
    each = logits.log_softmax(dim=2).gather(2, ids[:, 1:, None]).squeeze(2)  # (R, T - 1)
    ends = (ids[:, prompt:] == end).long()  # (R, T - P)
    return each[:, prompt - 1 :].masked_fill(ends.cumsum(dim=1) > ends, 0.0).sum(dim=1)


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
) -> Tensor:
    """Return the logits (R, V), float32, after ids (R, L), the tokens from position start on; seen as in decode."""
    states = model.text.decode(ids, image, caches, start, seen)  # (R, L, D)
    return model.text.logits(states[:, -1]).float()
