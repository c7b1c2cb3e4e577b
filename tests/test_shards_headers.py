"""Headers are read as Python's tarfile writes them, and nothing else is taken for one."""

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capfilt.shards.headers import BLOCK, ZEROS, header_sum, parse_header, parse_pax

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def written(name: str, size: int, form: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mtime = size, kind, 1_700_000_000
    return info.tobuf(form, "utf-8")


@pytest.mark.parametrize("form", FORMATS)
@given(
    name=st.text("abc/._- 0123456789é", min_size=1, max_size=40).filter(lambda name: not name.endswith("/")),
    size=st.integers(0, 8**11 - 1),
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE]),
)
def test_name_size_and_kind_are_read_in_every_format(form, name, size, kind):
    block = written(name, size, FORMATS[form], kind)[-BLOCK:]  # a pax record for a foreign name stands before it
    header = parse_header(block)

    assert header is not None
    assert (header.size, header.kind, header.checksum) == (size, kind, header_sum(block))
    if name.isascii():
        assert header.name == (f"{name}/" if kind == tarfile.DIRTYPE else name).encode()


def test_a_long_name_is_put_together_in_ustar_and_a_size_beyond_octal_read_in_gnu():
    name = "folder/" * 20 + "000420017.jpg"

    assert parse_header(written(name, 1, tarfile.USTAR_FORMAT)).name == name.encode()
    assert parse_header(written("a.jpg", 9 << 33, tarfile.GNU_FORMAT)).size == 9 << 33


@pytest.mark.parametrize(("size", "expected"), [(2**63 - 1, 2**63 - 1), (2**63, None), (2**88 - 1, None)])
def test_a_size_that_no_file_has_and_no_table_can_hold_is_damage(size, expected):
    header = parse_header(written("a.jpg", size, tarfile.GNU_FORMAT))
    assert (header.size if header else None) == expected


def test_a_block_with_any_other_byte_is_no_header():
    block = written("000420017.jpg", 4711, tarfile.GNU_FORMAT)

    for at in set(range(BLOCK)) - set(range(148, 156)):  # the checksum's own field has several forms
        changed = block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]
        assert parse_header(changed) is None, at
    assert parse_header(ZEROS) is None


@given(st.dictionaries(st.text("abcé.", min_size=1, max_size=9), st.text("x =\né", max_size=150), max_size=4))
def test_pax_records_come_back_as_they_were_written(records):
    data = b""
    for key, value in records.items():
        body = f" {key}={value}\n".encode()
        length = next(n for n in range(len(body), len(body) + 9) if len(str(n)) + len(body) == n)  # it counts itself
        data += str(length).encode() + body

    assert parse_pax(data) == {key.encode(): value.encode() for key, value in records.items()}


@pytest.mark.parametrize("data", [b"13 path=a.j\n", b"11 path=a.jg", b"10 pathaj\n", b"x path=a\n", b"0 path=a\n"])
def test_a_damaged_pax_record_is_an_error(data):
    with pytest.raises(ValueError, match=r"damaged|invalid literal"):
        parse_pax(data)
