"""What "auto" comes to, and that a run keeps it."""

import pytest
from pydantic import ValidationError

from capfilt.config import Device
from capfilt.med import auto
from capfilt.med.auto import resolve_auto


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets what the machine has."""

    def has(amx: bool, packing: bool) -> None:
        monkeypatch.setattr(auto, "MATRIX_UNITS", amx)
        monkeypatch.setattr(auto, "packing_suits", lambda _: packing)

    return has


@pytest.mark.parametrize(
    ("amx", "packing", "dtype", "linear"),
    [(True, True, "bfloat16", "packed"), (False, True, "float32", "packed"), (False, False, "float32", "plain")],
)
def test_auto_is_what_suits_the_machine(machine, amx, packing, dtype, linear):
    machine(amx, packing)
    assert resolve_auto(Device()) == Device(dtype=dtype, linear=linear)


def test_gpus_get_bfloat16_and_plain_layers(machine):
    machine(amx=False, packing=True)
    assert resolve_auto(Device(kind="cuda")) == Device(kind="cuda", dtype="bfloat16", linear="plain")


def test_what_is_set_stays(machine):
    machine(amx=True, packing=True)
    device = Device(dtype="float32", linear="plain", threads=3)
    assert resolve_auto(device) == resolve_auto(device, Device(dtype="bfloat16", linear="packed")) == device


def test_a_run_keeps_what_it_began_with(machine):
    machine(amx=True, packing=True)
    begun = Device(dtype="float32", linear="plain")
    assert resolve_auto(Device(), begun) == begun
    assert resolve_auto(Device(dtype="bfloat16"), begun) == Device(dtype="bfloat16", linear="plain")


def test_packed_layers_are_refused_on_gpus():
    with pytest.raises(ValidationError, match="packed is for CPUs"):
        Device(kind="cuda", linear="packed")
