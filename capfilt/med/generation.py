"""Writing captions: nucleus sampling and greedy decoding, token by token.

Shapes: B images, R = B * n captions (those of an image next to each other), P prompt tokens,
T the most tokens of a caption with the prompt, V vocabulary.
Source: BLIP, arXiv 2201.12086, sections 3.3 and 4.3; beam search is in beam.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med.attention import KeysValues
from capfilt.med.decoding import DecodingState, Generated, TextDecoder, next_logits, prefill
from capfilt.med.gpu import chunks_suit
from capfilt.med.model import MED
from capfilt.med.sampling import ban, cut, draw, nucleus, penalise

STEPS_PER_LOOK = {"cpu": 1, "cuda": 4}  # steps between checks of what is finished, at which the host waits for a GPU


@dataclass(frozen=True, slots=True)
class CaptionGenerator:
    """Writes captions."""

    model: TextDecoder
    prompt: list[int]  # ids that every caption starts with, [DEC] first
    end: int  # id of the end token, [SEP]
    settings: Sampling  # lengths count the prompt

    def begin(self, image: list[KeysValues], noise: Tensor | None = None, fixed: bool = False) -> DecodingState:
        """Read the prompt and write the first token after it.

        Args:
            image: cross-attention keys and values of B images, from model.project_image.
            noise: float64 (R, T) in [0, 1), one number for each draw; None decodes greedily, one caption for each
                image.
            fixed: keep finished captions, so that all steps have the same shape.
        """
        each = self.settings.captions if noise is not None else 1
        rows = len(image[0][0]) * each
        caches, ids, logits = prefill(self.model, image, self.prompt, rows, self.settings.max_length)
        state = DecodingState.of(image, caches, ids, noise, fixed)
        self._write(state, logits, len(self.prompt))
        return state

    def step_ranges(self, kind: str) -> Iterator[range]:
        """Yield the steps after the first token, in ranges between checks of what is finished on a kind of device."""
        first, last = len(self.prompt) + 1, self.settings.max_length
        for step in range(first, last, STEPS_PER_LOOK[kind]):
            yield range(step, min(step + STEPS_PER_LOOK[kind], last))

    def go_on(self, state: DecodingState, steps: range) -> None:
        """Write one token to each caption at each of the steps."""
        for step in steps:
            last = state.ids[:, step - 1 : step]  # (r, 1)
            logits = next_logits(self.model, last, state.image, state.caches, step - 1, groups=state.groups)  # (r, V)
            self._write(state, logits, step)

    def _write(self, state: DecodingState, logits: Tensor, step: int) -> None:
        written = state.ids[:, :step]  # (r, L)
        banned = self.end if step < self.settings.min_length else None
        if state.noise is not None and chunks_suit(logits, self.settings.top_k):
            token, logprob = self._draw_of_chunks(logits, written, banned, state.noise[:, step])  # (r,), (r,)
        else:
            logits = logits.float()
            noise = None if state.noise is None else state.noise[:, step]  # (r,)
            token = self._choose(logits, written, banned, noise)  # (r,)
            logprob = -F.cross_entropy(logits, token, reduction="none")  # (r,)
        state.write(token, step, logprob, self.end)

    def _choose(self, logits: Tensor, written: Tensor, banned: int | None, noise: Tensor | None) -> Tensor:
        """Return the next token (r,) after those written (r, L); noise is (r,)."""
        settings = self.settings
        scores = penalise(logits, written, settings.repetition_penalty)  # (r, V)
        if banned is not None:
            scores = ban(scores, banned)
        if noise is None:
            return scores.argmax(dim=1)
        scores = scores if settings.temperature == 1.0 else scores / settings.temperature
        return draw(*nucleus(scores, settings.top_k, settings.top_p), noise)

    def _draw_of_chunks(
        self, logits: Tensor, written: Tensor, banned: int | None, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the next token (r,), as _choose does but by chunks of the vocabulary, and its log-probability (r,)."""
        from capfilt.med.chunks import likeliest

        settings = self.settings
        values, ids, total = likeliest(logits, written, settings.repetition_penalty, banned, settings.top_k)
        probabilities = (values / settings.temperature).softmax(dim=1)  # (r, k)
        token = draw(cut(probabilities, settings.top_p), ids, noise)  # (r,)
        return token, logits.gather(1, token[:, None]).squeeze(1).float() - total


def generate(generator: CaptionGenerator, state: DecodingState, go_on: Callable[[range], object]) -> Generated:
    """Finish captions that were begun; go_on writes the tokens of a range of steps."""
    for steps in generator.step_ranges(state.ids.device.type):
        if not state.shrink(steps.start):
            break
        go_on(steps)
    return state.finish()


@torch.inference_mode()
def logprobs(model: MED, image: list[KeysValues], ids: Tensor, prompt: int, end: int) -> Tensor:
    """Return the log-probability, float32 (R,), of ids (R, T) from the prompt to the end token, in nats."""
    logits = model.decode(ids[:, :-1], image).float()  # (R, T - 1, V)
    each = logits.log_softmax(dim=2).gather(2, ids[:, 1:, None]).squeeze(2)  # (R, T - 1)
    ends = (ids[:, prompt:] == end).long()  # (R, T - P)
    return each[:, prompt - 1 :].masked_fill(ends.cumsum(dim=1) > ends, 0.0).sum(dim=1)
