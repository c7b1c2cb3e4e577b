"""What the processor says of itself."""

import pytest
import torch

from capfilt.med import processor
from capfilt.med.processor import has_matrix_units, maker


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\n", "AMD"),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\n", "Intel"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", ""),
        (None, ""),
    ],
)
def test_the_maker_is_read_from_what_linux_tells(tmp_path, monkeypatch, cpuinfo, expected):
    if cpuinfo:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    assert maker() == expected


def test_matrix_units_are_those_that_torch_finds():
    assert has_matrix_units() == torch.cpu._is_amx_tile_supported()


def test_a_compiled_function_may_ask_for_them():
    compiled = torch.compile(lambda x: x + has_matrix_units(), fullgraph=True, backend="eager")
    assert compiled(torch.zeros(1)).item() == has_matrix_units()
