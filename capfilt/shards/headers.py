"""The 512-byte header block of a tar member, and the extended names that may precede it.

Source: POSIX.1-2017 pax, "ustar Interchange Format"; the GNU tar manual, "Basic Tar Format".
"""

from typing import NamedTuple

BLOCK = 512
ZEROS = bytes(BLOCK)
_MAGIC_OFFSET = 257
MAX_SIZE = 2**63 - 1  # bytes: no file is larger, and no int64 column could hold more
CHECKSUM = slice(148, 156)  # its octal digits; all kinds of headers have it


class Header(NamedTuple):
    """What one header block says."""

    name: bytes
    size: int  # bytes of the member's data
    kind: bytes  # type flag: b"0" file, b"2" symbolic link, b"x" pax record, ...
    checksum: int
    link: bytes  # name of a link's target


def parse_header(block: bytes) -> Header | None:
    """Return the header in a block, or None if it holds none: its checksum must be that of its bytes."""
    checksum, size = _number(block[CHECKSUM]), _number(block[124:136])
    if checksum is None or size is None or checksum != header_sum(block):
        return None
    name = block[:100].partition(b"\0")[0]
    # Only POSIX headers have a prefix there; GNU headers keep time stamps in the same bytes.
    if block[_MAGIC_OFFSET : _MAGIC_OFFSET + 6] == b"ustar\0" and (prefix := block[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    return Header(name, size, block[156:157], checksum, block[157:257].partition(b"\0")[0])


def header_sum(block: bytes) -> int:
    """Return the checksum that a header block should state: the sum of its bytes, its own field read as blanks."""
    return sum(block) - sum(block[CHECKSUM]) + 8 * ord(" ")


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header, each "LENGTH KEY=VALUE\\n" with LENGTH counting the whole record.

    Raises:
        ValueError: the data is not a row of such records.
    """
    records = {}
    while data:
        length = int(data.partition(b" ")[0])
        record, data = data[:length], data[length:]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) != length or not equals or not value.endswith(b"\n"):
            raise ValueError(f"a pax record of {length} bytes is damaged")
        records[key] = value[:-1]
    return records


def _number(field: bytes) -> int | None:
    """Return a numeric field: octal digits, or a big-endian number of 63 bits after a first byte of 0x80."""
    if field[:1] == b"\x80":
        number = int.from_bytes(field[1:], "big")
        return number if number <= MAX_SIZE else None
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits.isdigit():
        return 0 if not digits else None
    try:
        return int(digits, 8)
    except ValueError:
        return None
