"""Attention by either kernel is the written-out sum."""

import pytest
import torch

from capfilt.med.attention import attention


@pytest.mark.parametrize(("dtype", "units"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("kind", ["open", "masked", "causal"])
def test_it_is_the_weighted_sum_of_the_values_that_may_be_seen(monkeypatch, dtype, units, kind):
    monkeypatch.setattr("capfilt.med.attention.has_matrix_units", lambda: units)
    generator = torch.Generator().manual_seed(0)
    q, keys, values = (torch.randn(2, 3, 5, 4, generator=generator).to(dtype) for _ in range(3))
    mask = torch.rand(2, 1, 1, 5, generator=generator) < 0.7
    mask[..., 0] = True
    may_see = {"open": torch.ones(5, 5), "masked": mask, "causal": torch.ones(5, 5).tril()}[kind].bool()

    found = attention(q, keys, values, mask if kind == "masked" else None, causal=kind == "causal")

    scores = q.double() @ keys.double().transpose(2, 3) / 2
    weights = scores.exp() * may_see
    expected = weights / weights.sum(-1, keepdim=True) @ values.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 3e-2)
    assert found.dtype == dtype
