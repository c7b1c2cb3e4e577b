"""What "auto" comes to, and that a run keeps it."""

import pytest
import torch
from models import lively_checkpoint
from pydantic import ValidationError

from capfilt.config import Device
from capfilt.med import inference
from capfilt.med.inference import packing_suits, ready, settle
from capfilt.med.packed import PackedLinear


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets what the machine has."""

    def has(amx: bool, packing: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(inference, "packing_suits", lambda _: packing)

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
    monkeypatch.setattr(inference, "CPUINFO", tmp_path / "cpuinfo")
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
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert any(isinstance(module, PackedLinear) for module in model.modules()) == (linear == "packed")
