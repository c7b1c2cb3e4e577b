"""Attention by either kernel is the written-out sum."""

import pytest
import torch

from capfilt.med.attention import attention


@pytest.mark.parametrize(("dtype", "units"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize("kind", ["open", "masked", "causal"])
def test_it_is_the_weighted_sum_of_the_values_that_may_be_seen(monkeypatch, dtype, units, kind):
    monkeypatch.setattr("capfilt.med.attention.MATRIX_UNITS", units)
    generator = torch.Generator().manual_seed(0)
    q, keys, values = (torch.randn(2, 3, 5, 4, generator=generator).to(dtype) for _ in range(3))
    mask = torch.rand(2, 1, 1, 5, generator=generator) < 0.7
    mask[..., 0] = True
    may_see = {"open": torch.ones(5, 5), "masked": mask, "causal": torch.ones(5, 5).tril()}[kind].bool()

    with torch.inference_mode():
        found = attention(q, keys, values, mask if kind == "masked" else None, causal=kind == "causal")

    scores = q.double() @ keys.double().transpose(2, 3) / 2
    weights = scores.exp() * may_see
    expected = weights / weights.sum(-1, keepdim=True) @ values.double()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 3e-2)
    assert found.dtype == dtype


@pytest.mark.parametrize("units", [True, False])
def test_a_training_in_bfloat16_on_a_cpu_takes_the_written_out_sum_compiled_or_not(monkeypatch, units):
    monkeypatch.setattr("capfilt.med.attention.MATRIX_UNITS", units)
    q, keys, values = (torch.randn(2, 3, 5, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    for function in (attention, torch.compile(attention, fullgraph=True, backend="eager")):
        assert "ScaledDotProduct" not in type(function(q, keys, values).grad_fn).__name__
