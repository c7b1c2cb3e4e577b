"""What the processor says of itself."""

import pytest

from capfilt.med import cpu
from capfilt.med.cpu import maker


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
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "cpuinfo")
    assert maker() == expected
