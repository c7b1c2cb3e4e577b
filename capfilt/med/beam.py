"""Beam search with the original's length rule.

The score of a finished caption is the sum of its log-probabilities, the end token's included, divided
by its number of ids, counting the prompt but not the end token. Newer transformers releases leave the
prompt out of the divisor and so choose other captions.

Shapes: B images, K beams, R = B * K rows, T the most tokens of a caption with the prompt, V vocabulary.
Source: transformers 4.15's beam search, which the original calls (arXiv 2201.12086, section 4.3, appendix A).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med.attention import KeysValues
from capfilt.med.decoding import Generated, TextDecoder, next_logits, prefill
from capfilt.med.sampling import ban, penalise

NEVER = -1e9


@dataclass(slots=True)
class Finished:
    """The best finished captions of one image."""

    beams: int
    captions: list[tuple[float, float, list[int]]] = field(default_factory=list)  # score, summed log-probability, ids
    closed: bool = False  # no open beam can still rank among them

    def add(self, total: float, ids: list[int], length: int) -> None:
        """Keep a caption if it is among the best; length counts the prompt but not the end token."""
        self.captions.append((total / length, total, ids))
        self.captions.sort(key=lambda caption: -caption[0])
        del self.captions[self.beams :]

    def close_if_best(self, best_open: float, length: int) -> None:
        """Take no more captions if no open beam, at its present score, can still rank among these."""
        full = len(self.captions) == self.beams
        self.closed = self.closed or (full and self.captions[-1][0] >= best_open / length)


@torch.inference_mode()
def beam_search(
    model: TextDecoder,
    image: list[KeysValues],
    prompt: list[int],
    end: int,
    settings: Sampling,
    seen: Tensor | None = None,
) -> Generated:
    """Write the best caption of each image by beam search; arguments as those of CaptionGenerator.

    seen, bool (B, M), is True for the context tokens that may be looked at; None allows all.
    The log-probabilities are those that the search maximises: they include the repetition penalty.
    """
    images, beams = len(image[0][0]), settings.beams
    caches, ids, logits = prefill(model, image, prompt, images * beams, settings.max_length, seen)  # logits (R, V)
    ids = ids[:, : len(prompt)]  # (R, P), grows by one a step
    # All beams of an image start out equal, so only the first may be continued in the first step.
    totals = logits.new_full((images, beams), NEVER, dtype=torch.float32)  # (B, K)
    totals[:, 0] = 0.0
    finished = [Finished(beams) for _ in range(images)]
    for length in range(len(prompt), settings.max_length):
        scores = penalise(logits.float().log_softmax(dim=1), ids, settings.repetition_penalty)  # (R, V)
        if length < settings.min_length:
            scores = ban(scores, end)
        rows, tokens, totals = _advance(scores, totals, ids, end, finished)
        ids = torch.cat([ids[rows], tokens[:, None]], dim=1)  # (R, length + 1)
        if all(found.closed for found in finished) or length + 1 == settings.max_length:
            break
        for cache in caches:
            cache.reorder(rows)
        logits = next_logits(model, ids[:, -1:], image, caches, length, seen)  # (R, V)
    for i in range(images):
        if not finished[i].closed:
            for k in range(beams):
                finished[i].add(float(totals[i, k]), ids[i * beams + k].tolist(), ids.shape[1])
    return _best(finished, settings.max_length, ids.device)


def _advance(
    scores: Tensor, totals: Tensor, ids: Tensor, end: int, finished: list[Finished]
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the beams of the next step: the rows they continue (R,), their new tokens (R,) and totals (B, K).

    The 2K best candidates are considered, so that K are left even if some end here.
    An end token ranked below the first K candidates is dropped, as in the original.
    """
    images, beams = totals.shape
    width = scores.shape[1]
    joint = (scores.view(images, beams, width) + totals[:, :, None]).flatten(1)  # (B, K * V)
    best, places = joint.topk(2 * beams, dim=1)  # (B, 2K), (B, 2K)
    rows, tokens, kept = [], [], []
    for i, (values, spots) in enumerate(zip(best.tolist(), places.tolist(), strict=True)):
        chosen: list[tuple[int, int, float]] = []
        for rank, (value, spot) in enumerate(zip(values, spots, strict=True)):
            row, token = i * beams + spot // width, spot % width
            if token != end:
                chosen.append((row, token, value))
            elif rank < beams and not finished[i].closed:
                finished[i].add(value, [*ids[row].tolist(), end], ids.shape[1])
            if len(chosen) == beams:
                break
        finished[i].close_if_best(values[0], ids.shape[1])
        rows += [row for row, _, _ in chosen]
        tokens += [token for _, token, _ in chosen]
        kept.append([value for _, _, value in chosen])
    return torch.tensor(rows, device=ids.device), torch.tensor(tokens, device=ids.device), totals.new_tensor(kept)


def _best(finished: list[Finished], length: int, device: torch.device) -> Generated:
    ids = torch.zeros(len(finished), length, dtype=torch.long, device=device)  # (B, T)
    for row, image in zip(ids, finished, strict=True):
        caption = image.captions[0][2]  # of T ids at most, the end token included
        row[: len(caption)] = torch.tensor(caption)
    return Generated(ids, torch.tensor([image.captions[0][1] for image in finished]))
