"""Kernels against torch's operators: on a GPU, or with their programs interpreted one after the other."""

from types import ModuleType

import pytest
import torch
import torch.nn.functional as F

from capfilt.config.sizes import TextConfig
from capfilt.med import attention
from capfilt.med.ragged import Padding

KIND = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.bfloat16 if KIND == "cuda" else torch.float16  # NumPy, by which kernels are interpreted, has no bfloat16


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    pytest.importorskip("triton", reason="Triton comes with torch's builds for GPUs")
    from capfilt.med import kernels

    return kernels


def noise(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(KIND, dtype)


@pytest.mark.parametrize("width", [64, 96])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sum_is_normed(kernels, width, dtype):
    x, delta = 3 * noise(5, 7, width), noise(5, 7, width, dtype=dtype)
    weight, bias = noise(width), noise(width + 1)[1:].clone()
    total, normed = torch.empty_like(x), torch.empty_like(delta)
    kernels.add_norm(x, delta, weight, bias, 1e-6, total, normed)
    expected = F.layer_norm(x + delta, (width,), weight, bias, 1e-6)
    assert total.equal(x + delta)
    torch.testing.assert_close(normed.float(), expected, rtol=0 if dtype == torch.float32 else 2**-7, atol=2e-6)


def test_a_sum_need_not_be_kept(kernels):
    x, delta, weight, bias = noise(3, 48), noise(3, 48, dtype=torch.bfloat16), noise(48), noise(48)
    normed = torch.empty_like(x)
    kernels.add_norm(x, delta, weight, bias, 1e-12, None, normed)
    torch.testing.assert_close(normed, F.layer_norm(x + delta, (48,), weight, bias, 1e-12), rtol=0, atol=2e-6)


@pytest.mark.parametrize("position", [0, 1, 7, 11])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_sees_those_before_it_and_itself(kernels, position, dtype):
    rows, heads, length, width = 3, 2, 12, 16
    keys, values = noise(rows, heads, length, width, dtype=dtype), noise(rows, heads, length, width, dtype=dtype) + 1
    keys[:, :, position:], values[:, :, position:] = torch.nan, torch.nan  # what nobody has written is not read
    joint = noise(rows, 3 * heads * width, dtype=dtype)
    q, key, value = (part.view(rows, heads, 1, width) for part in joint.chunk(3, dim=1))
    seen = kernels.attend_last(joint, keys, values, position)
    assert keys[:, :, position : position + 1].equal(key)
    assert values[:, :, position : position + 1].equal(value)
    so_far = (each[:, :, : position + 1].float() for each in (keys, values))
    expected = F.scaled_dot_product_attention(q.float(), *so_far)[:, :, 0].flatten(1)  # (R, D)
    torch.testing.assert_close(seen.float(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize(("queries", "tokens"), [(1, 577), (10, 65), (17, 64), (40, 3)])
def test_a_few_queries_see_an_image(kernels, queries, tokens):
    images, heads, width = 2, 3, 16
    q = noise(images, queries, heads * width, dtype=HALF)
    keys, values = (noise(images, tokens + i, heads * width, dtype=HALF)[:, i:] for i in (0, 1))
    keys, values = (each.contiguous().unflatten(2, (heads, width)).transpose(1, 2) for each in (keys, values))
    seen = kernels.attend_few(q, keys, values)
    split = q.unflatten(2, (heads, width)).transpose(1, 2).float()
    expected = F.scaled_dot_product_attention(split, keys.float(), values.float()).transpose(1, 2).flatten(2)
    torch.testing.assert_close(seen.float(), expected, rtol=0, atol=2e-2)
    assert seen.equal(kernels.attend_few(q, keys, values))


@pytest.mark.parametrize("owners", [[0, 0, 0, 2, 2], [0, 0, 1, 1, 2, 2]], ids=["unequal", "equal"])
@torch.inference_mode()
def test_unequally_many_rows_of_images_see_them(kernels, monkeypatch, owners):
    heads = attention.Heads(TextConfig(width=64, heads=2), 64).to(KIND, HALF).eval()
    context, q = heads.project(noise(3, 70, 64, dtype=HALF)), noise(len(owners), 64, dtype=HALF)
    groups = Padding.of(torch.tensor(owners, device=KIND), 3)
    monkeypatch.setattr(attention, "few_suit", lambda q, keys: False)
    expected = heads.attend(q, context, groups=groups)
    monkeypatch.setattr(attention, "few_suit", lambda q, keys: True)
    torch.testing.assert_close(heads.attend(q, context, groups=groups), expected, rtol=0, atol=2e-2)
