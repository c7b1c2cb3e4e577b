"""Top-k tokens on a GPU, found by chunks of the vocabulary, since a GPU is slow at picking a few out of many.

The logits of a step are large, so they are read in the type that they come in, and nothing of their size is written:
one kernel scans all of them for the best score of each chunk, another scores the tokens of the best chunks alone.

Shapes: R rows, V vocabulary (a multiple of CHUNK), L tokens written so far, k tokens that are kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from capfilt.med.kernels import FUSED
from capfilt.med.sampling import CHUNK

BLOCK = 4096  # tokens that are scanned at once
CHANGED = 32  # written tokens whose chunks are rescored at once
NOTHING = -1  # no token


def likeliest(
    logits: Tensor, written: Tensor, penalty: float, banned: int | None, k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k largest scores, largest first, the tokens they belong to, and the log-sum-exp of all logits.

    They are found in the k chunks with the largest scores.

    Args:
        logits: (R, V), contiguous, at least one of each chunk finite; V > k CHUNK.
        written: tokens written so far, int64 (R, L), with any stride between rows; their scores are lowered.
        penalty: by how much, as in sampling.penalise.
        banned: a token that cannot be chosen, if any.
        k: how many to return.

    Returns:
        float32 (R, k), int64 (R, k), and the log of the sum of exp(logits), float32 (R,).
    """
    rows, width = logits.shape
    best = logits.new_empty((rows, width // CHUNK), dtype=torch.float32)  # (R, V / CHUNK)
    total = logits.new_empty(rows, dtype=torch.float32)
    old = written, written.stride(0), written.shape[1], penalty, NOTHING if banned is None else banned
    options = {"num_warps": 8, "enable_fp_fusion": FUSED}
    _survey[(rows,)](logits, best, total, *old, width, CHUNK, BLOCK, CHANGED, **options)
    chosen = best.topk(k, dim=1).indices  # (R, k)
    among = best.new_empty((rows, k * CHUNK))
    _gather[(rows,)](logits, chosen, among, *old, width, k, CHUNK, triton.next_power_of_2(k), **options)
    values, places = among.topk(k, dim=1)  # (R, k), (R, k)
    return values, chosen.gather(1, places // CHUNK) * CHUNK + places % CHUNK, total


@triton.jit
def _score(logit, token, written_at, count, penalty, banned):
    old = token < 0
    for place in range(count):
        old = old | (token == tl.load(written_at + place))
    score = tl.where(old, tl.where(logit < 0, logit * penalty, logit / penalty), logit)
    return tl.where(token == banned, float("-inf"), score)


@triton.jit(do_not_specialize=["count"])  # which differs at each step
def _survey(
    logits_at,
    best_at,
    total_at,
    written_at,
    written_stride,
    count,
    penalty,
    banned,
    width,
    chunk: tl.constexpr,
    block: tl.constexpr,
    changed: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    mine = logits_at + row * width
    best_at, written_at = best_at + row * (width // chunk), written_at + row * written_stride
    each, number = tl.arange(0, block), tl.arange(0, block // chunk)
    most, mass = tl.full([1], float("-inf"), tl.float32), tl.zeros([1], tl.float32)
    for first in range(0, width, block):
        logit = tl.load(mine + first + each, first + each < width, float("-inf")).to(tl.float32)
        best = tl.max(tl.reshape(logit, (block // chunk, chunk)), 1)
        tl.store(best_at + first // chunk + number, best, first // chunk + number < width // chunk)
        more = tl.maximum(most, tl.max(best, 0))
        mass = mass * tl.exp(most - more) + tl.sum(tl.exp(logit - more), 0)
        most = more
    tl.store(total_at + row + tl.arange(0, 1), most + tl.log(mass))
    tl.debug_barrier()  # from here on, other threads write to the same places
    place, inner = tl.arange(0, changed), tl.arange(0, chunk)
    for start in range(0, count + 1, changed):  # chunks with tokens that are penalised or banned
        old = tl.load(written_at + start + place, start + place < count, 0)
        old = tl.where(start + place < count, old, banned)
        real = (start + place <= count) & (old >= 0)
        token = (old // chunk * chunk)[:, None] + inner[None, :]
        there = tl.load(mine + token, real[:, None], float("-inf")).to(tl.float32)
        anew = tl.max(_score(there, token, written_at, count, penalty, banned), 1)
        tl.store(best_at + old // chunk, anew, real)


@triton.jit(do_not_specialize=["count"])
def _gather(
    logits_at,
    chosen_at,
    among_at,
    written_at,
    written_stride,
    count,
    penalty,
    banned,
    width,
    k,
    chunk: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    place, inner = tl.arange(0, block)[:, None], tl.arange(0, chunk)[None, :]
    token = tl.load(chosen_at + row * k + place, place < k, 0) * chunk + inner
    logit = tl.load(logits_at + row * width + token, place < k, float("-inf")).to(tl.float32)
    score = _score(logit, token, written_at + row * written_stride, count, penalty, banned)
    tl.store(among_at + row * k * chunk + place * chunk + inner, score, place < k)
