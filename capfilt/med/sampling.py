"""From the logits of the next token to the next token: penalties, top-k, nucleus, the draw.

Shapes: R rows (captions being written), V vocabulary, L tokens written so far, T steps, C tokens of a chunk.
Source: the processors that the original's generate call applies, in its order (arXiv 2201.12086
names only the nucleus; the top-k of 50 and the penalty of 1.1 come from the code).
"""

from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, Philox
from torch import Tensor

BANNED = float("-inf")
LIKELY = 256  # tokens among which the nucleus is searched first
CHUNK = 64  # tokens; a GPU takes a vocabulary of whole chunks


def uniforms(seeds: list[int], captions: int, steps: int) -> Tensor:
    """Return the noise of each caption of each image, float64 (B * captions, steps) in [0, 1).

    The generator is counter-based (Philox; Salmon et al., SC 2011) and keyed by the image's
    seed and the caption's number, so a caption never depends on what shares its batch.
    """
    bits = Philox(key=0)
    state, draws = bits.state, Generator(bits)
    noise = np.empty((len(seeds) * captions, steps))  # (B * captions, steps)
    for row, (seed, index) in zip(noise, product(seeds, range(captions)), strict=True):
        # A list of Python numbers would become float64 from 2**63 on and give neighbouring seeds one key.
        state["state"]["key"] = np.array([seed, index], np.uint64)
        bits.state = state  # takes a tenth of the time of a new generator
        draws.random(out=row)
    return torch.from_numpy(noise)


def penalise(scores: Tensor, written: Tensor, penalty: float) -> Tensor:
    """Return scores (R, V) with those of tokens already written (R, L) lowered, whatever their sign."""
    if penalty == 1.0:
        return scores
    old = scores.gather(1, written)  # (R, L)
    return scores.scatter(1, written, torch.where(old < 0, old * penalty, old / penalty))


def ban(scores: Tensor, token: int) -> Tensor:
    """Return scores (R, V) with which a token cannot be chosen."""
    scores = scores.clone()
    scores[:, token] = BANNED
    return scores


def nucleus(scores: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Return what may be drawn: of the k likeliest tokens, the fewest whose mass reaches top_p.

    Without top_k, a GPU sorts the vocabulary for all rows, a CPU only for rows whose LIKELY likeliest tokens fall short
    of top_p. The result for a row is the same to the bit, whatever other rows there are.

    Args:
        scores: logits, float32 (R, V).
        top_k: 0 keeps all tokens.
        top_p: as a share of the mass of those k tokens; 1 keeps them all.

    Returns:
        Probabilities, likeliest first, 0 outside the nucleus, and the token ids they belong to, both (R, k).
    """
    if top_k:
        values, ids = scores.topk(min(top_k, scores.shape[1]), dim=1)  # (R, k), (R, k)
        probabilities = values.softmax(dim=1)  # (R, k)
    elif top_p == 1.0 or scores.is_cuda:  # a look at values would make a GPU wait, and cannot be captured
        probabilities, ids = _all_likely(scores)  # (R, V), (R, V)
    else:
        values, ids = scores.topk(min(LIKELY, scores.shape[1]), dim=1)  # (R, k), (R, k)
        probabilities = (values - scores.logsumexp(dim=1, keepdim=True)).exp()  # (R, k)
        short = probabilities.sum(dim=1) < top_p  # (R,)
        if short.any():
            # Sorting may order equal scores differently, so only short rows take its result, whatever the batch.
            padding = (0, scores.shape[1] - ids.shape[1])
            probabilities, ids = F.pad(probabilities, padding), F.pad(ids, padding)  # (R, V), (R, V)
            probabilities[short], ids[short] = _all_likely(scores[short])
    return cut(probabilities, top_p), ids


def cut(probabilities: Tensor, top_p: float) -> Tensor:
    """Return probabilities (R, k), likeliest first, with 0 after the fewest whose mass reaches top_p."""
    if top_p == 1.0:
        return probabilities  # the sum below rounds to 1 long before the last token
    before = probabilities.cumsum(dim=1) - probabilities  # (R, k), mass of the likelier tokens
    return probabilities.masked_fill(before >= top_p, 0.0)


def _all_likely(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the probabilities of scores (R, V), likeliest first, and the tokens they belong to, both (R, V)."""
    values, ids = scores.sort(dim=1, descending=True)  # (R, V), (R, V)
    return (values - scores.logsumexp(dim=1, keepdim=True)).exp(), ids


def draw(probabilities: Tensor, ids: Tensor, noise: Tensor) -> Tensor:
    """Return one token for each row, (R,), by inverting the distribution at noise (R,) in [0, 1)."""
    mass = probabilities.double().cumsum(dim=1)  # (R, k)
    place = torch.searchsorted(mass, (noise.to(mass) * mass[:, -1])[:, None], right=True)  # (R, 1)
    return ids.gather(1, place.clamp(max=ids.shape[1] - 1)).squeeze(1)
