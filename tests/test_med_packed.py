"""Where packed layers suit the machine."""

import pytest
import torch

from capfilt.med import packed
from capfilt.med.packed import PackedLinear, packing_suits


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
