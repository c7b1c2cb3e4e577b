"""The sum and norm at the end of each half of a transformer block; on a GPU both in one pass over memory.

Shapes: ..., D width.
"""

from torch import Tensor, nn

from capfilt.med.gpu import kernels_suit


def pre_norm(x: Tensor, delta: Tensor, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return x + delta (..., D), the residual stream of a ViT, and its norm, which the next half reads."""
    if not kernels_suit(x):
        total = x + delta  # (..., D)
        return total, norm(total)
    from capfilt.med.kernels import add_norm

    total, normed = x.new_empty(x.shape), delta.new_empty(x.shape)
    add_norm(x.contiguous(), delta.contiguous(), norm.weight, norm.bias, norm.eps, total, normed)
    return total, normed


def post_norm(x: Tensor, delta: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Return the norm of x + delta (..., D), which in a BERT is the residual stream itself."""
    if not kernels_suit(x):
        return norm(x + delta)  # type: ignore[no-any-return]
    from capfilt.med.kernels import add_norm

    normed = x.new_empty(x.shape)
    add_norm(x.contiguous(), delta.contiguous(), norm.weight, norm.bias, norm.eps, None, normed)
    return normed
