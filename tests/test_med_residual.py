"""The two ends of half a transformer block, against sum and norm written out."""

import pytest
import torch
from torch import Tensor, nn

from capfilt.med.residual import post_norm, pre_norm

EPS = 1e-6


@pytest.fixture
def norm() -> nn.LayerNorm:
    torch.manual_seed(0)
    norm = nn.LayerNorm(6, eps=EPS)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    return norm


def written_out(total: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = total - total.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt() * norm.weight + norm.bias


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_stream_is_the_sum_and_stays_float32(norm, dtype):
    x, delta = torch.randn(2, 3, 6), torch.randn(2, 3, 6).to(dtype)
    total, normed = pre_norm(x, delta, norm)

    assert total.dtype == torch.float32
    assert torch.equal(total, x + delta.float())
    torch.testing.assert_close(normed, written_out(x + delta.float(), norm))
    torch.testing.assert_close(post_norm(x, delta, norm), normed)


@torch.inference_mode()
def test_what_is_added_is_left_as_it_is(norm):
    x, delta = torch.randn(4, 6), torch.randn(4, 6)
    before = x.clone(), delta.clone()

    pre_norm(x, delta, norm), post_norm(x, delta, norm)

    assert torch.equal(x, before[0])
    assert torch.equal(delta, before[1])
