"""A model that is made ready has the types and the layers of its device, and rounds what a device says and no more."""

import pytest
import torch
from models import lively_checkpoint
from torch import nn

from capfilt.config import Device
from capfilt.med.inference import ready
from capfilt.med.model import MED
from capfilt.med.packed import PackedLinear


@pytest.mark.parametrize("linear", ["plain", "packed"])
def test_a_model_is_brought_to_its_type_and_form(tmp_path, linear):
    model = ready(lively_checkpoint(tmp_path).model, Device(dtype="bfloat16", linear=linear))
    block = model.text.blocks[0]
    assert block.mlp.up.weight.dtype == block.mlp.up.bias.dtype == model.vision.vit.blocks[0].attn.qkv.weight.dtype
    assert block.mlp.up.weight.dtype == model.text.embeddings.words.weight.dtype == torch.bfloat16
    assert block.mlp.norm.weight.dtype == model.vision.vit.norm.weight.dtype == torch.float32
    assert model.itm_head.weight.dtype == model.vision.vit.pos_embed.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert any(isinstance(module, PackedLinear) for module in model.modules()) == (linear == "packed")


def test_convolutions_do_not_round_float32(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", True)
    ready(lively_checkpoint(tmp_path).model, Device(dtype="float32", linear="plain"))
    assert not torch.backends.cudnn.allow_tf32


def test_a_full_gpu_is_told_while_a_model_is_made_ready_and_not_by_its_first_batch(tmp_path, monkeypatch):
    def find_no_memory() -> bool:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(MED, "to", lambda model, kind: model)
    monkeypatch.setattr("capfilt.med.inference.kernels_run", find_no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        ready(lively_checkpoint(tmp_path).model, Device(kind="cuda", dtype="float32"))


@pytest.mark.parametrize(("maker", "left_out"), [("AMD", False), ("Intel", True)])
def test_packing_leaves_out_a_tower_that_is_faster_as_it_is(tmp_path, monkeypatch, maker, left_out):
    monkeypatch.setattr("capfilt.med.packed.maker", lambda: maker)
    model = ready(lively_checkpoint(tmp_path).model, Device(dtype="float32", linear="packed"))
    assert isinstance(model.text.blocks[0].mlp.up, PackedLinear)
    assert any(isinstance(module, PackedLinear) for module in model.vision.modules()) != left_out
    assert any(isinstance(module, nn.GELU) for module in model.vision.modules()) == left_out


@pytest.mark.parametrize("units", [True, False])
def test_attention_to_an_image_is_fused_in_bfloat16_where_matrix_units_make_it_fast(tmp_path, monkeypatch, units):
    monkeypatch.setattr("capfilt.med.inference.MATRIX_UNITS", units)
    model = ready(lively_checkpoint(tmp_path).model, Device(dtype="bfloat16", linear="plain"))
    assert {block.attn.fused_attn for block in model.vision.vit.blocks} == {units}


@pytest.mark.parametrize("linear", ["plain", "packed"])
@torch.inference_mode()
def test_what_adds_up_over_the_blocks_is_not_rounded(tmp_path, linear):
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(5, 20, (8, 6), generator=torch.Generator().manual_seed(1))
    keep = torch.ones_like(ids, dtype=torch.bool)

    def said(model: MED, dtype: torch.dtype) -> list[torch.Tensor]:
        tokens = model.encode_image(images.to(dtype))
        assert tokens.dtype == dtype
        image = model.project_image(tokens)
        assert image[0][0].dtype == dtype
        return [model.match(ids, keep, image), model.text_features(ids, keep), model.image_features(tokens)]

    def load() -> MED:
        return lively_checkpoint(tmp_path).model.eval().requires_grad_(False)

    exact = said(load(), torch.float32)
    ours = said(ready(load(), Device(dtype="bfloat16", linear=linear)), torch.bfloat16)
    all_rounded = said(load().to(torch.bfloat16), torch.bfloat16)

    for mine, rounded, expected in zip(ours, all_rounded, exact, strict=True):
        assert mine.dtype == torch.float32
        error, other = (mine - expected).norm(), (rounded.float() - expected).norm()
        assert 0 < error < 0.9 * other
