"""Writing captions: nucleus sampling and greedy decoding, token by token.

Shapes: B images, R = B * n captions (those of an image next to each other), P prompt tokens,
T the most tokens of a caption with the prompt, V vocabulary.
Source: BLIP, arXiv 2201.12086, sections 3.3 and 5.1; beam search is in beam.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med.attention import KeysValues
from capfilt.med.draft import Writer, begin, next_logits
from capfilt.med.graphs import Recorder
from capfilt.med.model import MED
from capfilt.med.sampling import ban, draw, nucleus, penalise


class Written(NamedTuple):
    """Captions as token ids."""

    ids: Tensor  # int64 (R, T), prompt first, 0 ([PAD]) behind the end token
    logprobs: Tensor  # float32 (R,), summed over the generated tokens, the end token included; nats


@torch.inference_mode()
def sample(
    model: Writer,
    image: list[KeysValues],
    prompt: list[int],
    end: int,
    settings: Sampling,
    noise: Tensor | None = None,
    recorder: Recorder | None = None,
) -> Written:
    """Write captions by nucleus sampling, or greedily when noise is None.

    Args:
        model: with a decoder.
        image: cross-attention keys and values of B images, from model.project_image.
        prompt: ids that every caption starts with, [DEC] first.
        end: id of the end token, [SEP].
        settings: lengths count the prompt.
        noise: float64 (R, T) in [0, 1), one number for each draw.
        recorder: of the steps, for a GPU.
    """
    each = settings.captions if noise is not None else 1
    draft, logits = begin(model, image, prompt, each, settings.max_length)  # logits (R, V)
    tape = recorder.take(model, draft) if recorder else None
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
        if tape:
            logits = tape.next_logits(last, step)  # (r, V)
        else:
            logits = next_logits(model, last, draft.image, draft.caches, step, places=draft.places)  # (r, V)
    return written


@torch.inference_mode()
def logprobs(model: MED, image: list[KeysValues], ids: Tensor, prompt: int, end: int) -> Tensor:
    """Return the log-probability, float32 (R,), of ids (R, T) from the prompt to the end token, in nats."""
    logits = model.decode(ids[:, :-1], image).float()  # (R, T - 1, V)
    each = logits.log_softmax(dim=2).gather(2, ids[:, 1:, None]).squeeze(2)  # (R, T - 1)
    ends = (ids[:, prompt:] == end).long()  # (R, T - P)
    return each[:, prompt - 1 :].masked_fill(ends.cumsum(dim=1) > ends, 0.0).sum(dim=1)
