"""Triton kernels that do in one pass over a GPU's memory what torch does in several.

They are compiled where they run, when first called. Equal inputs give results equal to the bit, which torch's attention
does not guarantee for a single query.

Shapes: R rows, D width, H heads, K = D // H, L the most tokens of a text, B images, M image tokens, Q queries.
"""

import triton
import triton.language as tl
from torch import Tensor

MIN_ROWS = 16  # of a product on a GPU's matrix units
TOKENS = 64  # image tokens that are read at once
STAGES, WIDE = 3, 128  # reads in flight; only one for heads wider than WIDE, since smaller GPUs lack room for more
FUSED = True  # a multiply-add rounds once; Triton's default depends on its version


def add_norm(
    x: Tensor, delta: Tensor, weight: Tensor, bias: Tensor, eps: float, total: Tensor | None, normed: Tensor
) -> None:
    """Write x + delta to total, if given, and its layer norm to normed; x and normed may differ in type.

    Args:
        x: (..., D), as are delta, total and normed; all of them contiguous.
        delta: what is added.
        weight: (D,), as is bias.
        bias: of the norm.
        eps: of the norm.
        total: takes the sum.
        normed: takes the norm, in its own type.
    """
    width = x.shape[-1]
    block = triton.next_power_of_2(width)
    grid, options = (x.numel() // width,), {"num_warps": 4, "enable_fp_fusion": FUSED}
    _add_norm[grid](x, delta, weight, bias, total, normed, width, eps, total is not None, block, **options)


@triton.jit
def _add_norm(
    x_at, delta_at, weight_at, bias_at, total_at, normed_at, width, eps, summed: tl.constexpr, block: tl.constexpr
):
    column = tl.arange(0, block)  # (D,)
    real = column < width
    place = tl.program_id(0).to(tl.int64) * width + column
    x = tl.load(x_at + place, real, 0.0).to(tl.float32) + tl.load(delta_at + place, real, 0.0).to(tl.float32)
    if summed:
        tl.store(total_at + place, x, real)
    centred = tl.where(real, x - tl.sum(x, 0) / width, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    weight, bias = tl.load(weight_at + column, real, 0.0), tl.load(bias_at + column, real, 0.0)
    tl.store(normed_at + place, centred * scale * weight + bias, real)


def attend_last(joint: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
    """Return the attention (R, D) of the tokens at a position over their texts so far; store their keys and values.

    Args:
        joint: queries, keys and values of one token of each text next to each other, (R, 3 D), contiguous.
        keys: of the tokens before it, (R, H, L, K), contiguous; those of the token are written to its position.
        values: likewise.
        position: of the token in its text.
    """
    rows, heads, length, width = keys.shape
    seen = joint.new_empty(rows, heads * width)  # (R, D)
    block = triton.next_power_of_2(length)
    grid, options = (rows * heads,), {"num_warps": 1, "enable_fp_fusion": FUSED}
    _attend_last[grid](joint, keys, values, seen, position, length, heads, width, block, **options)
    return seen


@triton.jit(do_not_specialize=["position"])  # which differs at each step
def _attend_last(
    joint_at,
    keys_at,
    values_at,
    seen_at,
    position,
    length,
    heads: tl.constexpr,
    width: tl.constexpr,
    block: tl.constexpr,
):
    number = tl.program_id(0).to(tl.int64)  # of a head of a row
    row, head = number // heads, number % heads
    column, token = tl.arange(0, width), tl.arange(0, block)  # (K,), (L,)
    mine = joint_at + row * 3 * heads * width + head * width + column
    query = tl.load(mine).to(tl.float32) * width**-0.5
    key, value = tl.load(mine + heads * width), tl.load(mine + 2 * heads * width)
    start = number * length * width
    tl.store(keys_at + start + position * width + column, key)
    tl.store(values_at + start + position * width + column, value)
    before = token < position
    place = start + token[:, None] * width + column[None, :]  # (L, K)
    keys = tl.load(keys_at + place, before[:, None], 0.0).to(tl.float32)
    scores = tl.where(before, tl.sum(keys * query[None, :], 1), float("-inf"))  # (L,)
    own = tl.sum(query * key.to(tl.float32), 0)
    most = tl.maximum(tl.max(scores, 0), own)
    weights, mine_too = tl.exp(scores - most), tl.exp(own - most)
    values = tl.load(values_at + place, before[:, None], 0.0).to(tl.float32)
    seen = tl.sum(weights[:, None] * values, 0) + mine_too * value.to(tl.float32)  # (K,)
    tl.store(seen_at + row * heads * width + head * width + column, seen / (tl.sum(weights, 0) + mine_too))


def attend_few(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return softmax(q keys^T / sqrt(K)) values for a few queries of each image, (B, Q, D), in bfloat16.

    Each key and value is read once, as fast as the memory allows.

    Args:
        q: (B, Q, D), contiguous.
        keys: (B, H, M, K), of any strides but the last, which is 1.
        values: likewise, with the same strides.
    """
    images, queries, _ = q.shape
    _, heads, tokens, width = keys.shape
    seen = q.new_empty(q.shape)
    rows = max(triton.next_power_of_2(queries), MIN_ROWS)
    grid, options = (images * heads,), {"num_stages": STAGES if width <= WIDE else 1, "enable_fp_fusion": FUSED}
    strides = keys.stride()[:3]
    _attend_few[grid](q, keys, values, seen, queries, tokens, *strides, heads, width, rows, TOKENS, **options)
    return seen


@triton.jit
def _attend_few(
    q_at,
    keys_at,
    values_at,
    seen_at,
    queries,
    tokens,
    image_stride,
    head_stride,
    token_stride,
    heads: tl.constexpr,
    width: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
):
    number = tl.program_id(0).to(tl.int64)  # of a head of an image
    image, head = number // heads, number % heads
    row, column, token = tl.arange(0, rows), tl.arange(0, width), tl.arange(0, block)
    mine = (image * queries + row[:, None]) * heads * width + head * width + column[None, :]  # (Q, K)
    real = row[:, None] < queries
    q = tl.load(q_at + mine, real, 0.0)
    start = image * image_stride + head * head_stride
    most, mass = tl.full([rows], float("-inf"), tl.float32), tl.zeros([rows], tl.float32)  # (Q,)
    seen = tl.zeros([rows, width], tl.float32)  # (Q, K)
    for first in range(0, tokens, block):
        there = first + token < tokens
        place = start + (first + token)[:, None] * token_stride + column[None, :]  # (M, K)
        keys = tl.load(keys_at + place, there[:, None], 0.0)
        values = tl.load(values_at + place, there[:, None], 0.0)
        scores = tl.dot(q, tl.trans(keys)) * width**-0.5  # (Q, M)
        scores = tl.where(there[None, :], scores, float("-inf"))
        more = tl.maximum(most, tl.max(scores, 1))
        weights, faded = tl.exp(scores - more[:, None]), tl.exp(most - more)
        seen = seen * faded[:, None] + tl.dot(weights.to(values.dtype), values)
        mass = mass * faded + tl.sum(weights, 1)
        most = more
    tl.store(seen_at + mine, seen / mass[:, None], real)
