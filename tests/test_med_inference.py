"""What "auto" comes to, and that a run keeps it."""

import pytest
import torch
from models import lively_checkpoint
from pydantic import ValidationError

from capfilt.config import Device
from capfilt.med import packed, settled
from capfilt.med.inference import ready
from capfilt.med.model import MED
from capfilt.med.packed import PackedLinear, packing_suits
from capfilt.med.settled import settle


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets what the machine has."""

    def has(amx: bool, packing: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(settled, "packing_suits", lambda _: packing)

    return has


@pytest.mark.parametrize(
    ("amx", "packing", "dtype", "linear"),
    [(True, True, "bfloat16", "packed"), (False, True, "float32", "packed"), (False, False, "float32", "plain")],
)
def test_auto_is_what_suits_the_machine(machine, amx, packing, dtype, linear):
    machine(amx, packing)
    assert settle(Device()) == Device(dtype=dtype, linear=linear)


def test_gpus_get_bfloat16_and_plain_layers(machine):
    machine(amx=False, packing=True)
    assert settle(Device(kind="cuda")) == Device(kind="cuda", dtype="bfloat16", linear="plain")


def test_what_is_set_stays(machine):
    machine(amx=True, packing=True)
    device = Device(dtype="float32", linear="plain", threads=3)
    assert settle(device) == settle(device, Device(dtype="bfloat16", linear="packed")) == device


def test_a_run_keeps_what_it_began_with(machine):
    machine(amx=True, packing=True)
    begun = Device(dtype="float32", linear="plain")
    assert settle(Device(), begun) == begun
    assert settle(Device(dtype="bfloat16"), begun) == Device(dtype="bfloat16", linear="plain")


@pytest.mark.parametrize(
    ("cpuinfo", "dtype", "suits"),
    [
        ("vendor_id\t: AuthenticAMD\n", torch.float32, True),
        ("vendor_id\t: GenuineIntel\n", torch.float32, False),
        (None, torch.float32, False),
        ("vendor_id\t: GenuineIntel\n", torch.bfloat16, True),
    ],
)
def test_packing_suits_bfloat16_and_processors_that_mkl_does_not(tmp_path, monkeypatch, cpuinfo, dtype, suits):
    if cpuinfo:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(packed, "CPUINFO", tmp_path / "cpuinfo")
    assert packing_suits.__wrapped__(dtype) == suits


def test_packing_never_suits_where_it_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not packing_suits.__wrapped__(torch.bfloat16)


def test_packing_never_suits_where_it_says_something_else(monkeypatch):
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: x.new_zeros(*x.shape[:-1], 96))
    assert not packing_suits.__wrapped__(torch.bfloat16)


def test_packed_layers_are_refused_on_gpus():
    with pytest.raises(ValidationError, match="packed is for CPUs"):
        Device(kind="cuda", linear="packed")


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
