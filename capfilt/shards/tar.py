"""Index a tar file by its headers, and report what of it is damaged.

The standard library stops silently at the first damaged header and at the first end mark. Here every header's
checksum is verified; after a damaged header the walk goes on at the next valid one, and reports the bytes between.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, Literal, NamedTuple

from capfilt.display import listed
from capfilt.shards.headers import BLOCK, CHECKSUM, MAX_SIZE, ZEROS, Header, parse_header, parse_pax

_FIRST_CHUNK, _CHUNK = 4 << 10, 1 << 20  # bytes of the first and the largest read where no header says how far to go
_MAX_EXTENSION = 1 << 20  # bytes of a long name or a pax record; a larger one is damage
# How tars state a checksum. Its own first byte alone is consumed, since digits may precede it.
_STATED = re.compile(rb"[ 0-7](?=[ 0-7]{4}[0-7][0-7 \0][ \0])")
_LISTED = 5  # damages described in full
_SPARSE = b"GNU.sparse."  # prefix of the pax keys that describe a file with holes

Kind = Literal["file", "cut", "sparse", "hard link", "symbolic link", "unknown suffix", "other"]
_LINKS: dict[bytes, Kind] = {b"1": "hard link", b"2": "symbolic link"}


class Member(NamedTuple):
    """One member of a tar and where its bytes are."""

    name: str
    data: int  # offset of its bytes, after a header; a hard link has those of its target
    size: int
    checksum: int  # of that header: on reading, the header must still be the same
    # "cut": the file ends inside it; "hard link": to no earlier member; "unknown suffix": the member stands in for the
    # image that its sample lacks; "other": a device or a folder
    kind: Kind
    archive: int  # 0, or more for archives after the first end mark


class TarIndex(NamedTuple):
    """The members of a tar in file order, and what is wrong with it in one line."""

    members: list[Member]
    damage: str


def index_tar(file: BinaryIO, size: int) -> TarIndex:
    """Walk the headers of a tar of `size` bytes. A damaged tar gives the members that are readable, never an error."""
    walk = _Walk(file, size)
    offset = 0
    while offset < size:
        offset = walk.step(offset)
    if not walk.ended:
        walk.damage.append(f"no end mark at byte {size}: what followed is missing")
    return TarIndex(walk.members, "; ".join(listed(walk.damage, _LISTED)))


class _Walk:
    """One pass over the headers."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size
        self.members: list[Member] = []
        self.damage: list[str] = []
        self.ended = False  # by an end mark, or by damage that reaches to the end
        self.archive = 0
        self.named: dict[str, Member] = {}  # the last member of each name in this archive: targets of hard links
        self.extended: dict[bytes, bytes] = {}  # fields of the next member, from a pax record or a long name

    def step(self, offset: int) -> int:
        """Read the block at offset, and return the offset of the next header."""
        block = self._bytes(offset, BLOCK)
        if block == ZEROS:
            return self._end(offset)
        if len(block) < BLOCK:
            self.damage.append(f"cut inside the tar header at byte {offset}: what followed is missing")
            self.ended = True
            return self.size
        header = parse_header(block)
        return self._resync(offset) if header is None else self._take(header, offset + BLOCK)

    def _take(self, header: Header, data: int) -> int:
        size = header.size
        if header.kind in (b"L", b"K", b"x") and data + size <= self.size:
            self._extend(header.kind, data, size)
        elif header.kind not in (b"L", b"K", b"x", b"g"):  # these are no members; "g" holds defaults, and no names
            size = self._add(header, data)
        if data + size > self.size:
            self.damage.append(
                f"cut at byte {self.size} inside {_decode(header.name)}, which begins at byte {data}: "
                f"{self.size - data} of its {size} bytes are there"
            )
            self.ended = True
        return data + -(-size // BLOCK) * BLOCK

    def _extend(self, kind: bytes, data: int, size: int) -> None:
        try:
            if size > _MAX_EXTENSION:
                raise ValueError(f"{size} bytes")
            content = self._bytes(data, size)
            long = {b"L": b"path", b"K": b"linkpath"}.get(kind)
            self.extended |= {long: content.partition(b"\0")[0]} if long else parse_pax(content)
        except ValueError as error:
            self.damage.append(f"the extended header at byte {data} cannot be read ({error}): a name may be cut")

    def _add(self, header: Header, data: int) -> int:
        """Add a member and return its size, which a pax record may overrule."""
        stated = self.extended.get(b"size", b"")
        size = min(int(stated), MAX_SIZE) if stated.isdigit() and len(stated) < 20 else header.size
        kind = _LINKS.get(header.kind, "other")
        if header.kind in (b"0", b"\0", b"7"):
            kind = "cut" if data + size > self.size else "file"
        if header.kind == b"S" or (kind == "file" and any(key.startswith(_SPARSE) for key in self.extended)):
            kind = "sparse"  # its holes are left out: the bytes that are there are not the file's
            size += self._sparse_map(data) if header.kind == b"S" else 0
        elif kind not in ("file", "cut"):  # only files have data; a link may state the size of its target
            size = 0
        name = _decode(self.extended.get(_SPARSE + b"name", self.extended.get(b"path", header.name)))
        member = Member(name, data, size, header.checksum, kind, self.archive)
        if kind == "hard link" and (target := self.named.get(_decode(self.extended.get(b"linkpath", header.link)))):
            member = target._replace(name=name)
        self.named[name] = member
        self.members.append(member)
        self.extended = {}
        return size

    def _sparse_map(self, data: int) -> int:
        """Return the bytes of the blocks between the header of an old sparse file and its data: more of its holes."""
        end, more = data, self._bytes(data - 30, 1)
        while more.strip(b"\0"):
            more, end = self._bytes(end + 504, 1), end + BLOCK
        return end - data

    def _end(self, offset: int) -> int:
        """Return where the file goes on after an end mark at offset: its size, if only padding follows."""
        found = self._nonzero(offset)
        if self.extended:
            self.damage.append(f"the extended header before byte {offset} is of no member: one is missing")
        self.extended = {}
        self.ended = found == self.size
        if not self.ended and parse_header(self._bytes(found, BLOCK)):
            if found - offset >= 2 * BLOCK:
                self.archive += 1
                self.named = {}
            self.damage.append(f"more members at byte {found}, behind the end mark at byte {offset}: read too")
        return found

    def _nonzero(self, offset: int) -> int:
        """Return the offset of the first block from offset on that is not all zeros, or the size of the file."""
        for start, chunk in self._chunks(offset, overlap=0):
            if rest := chunk.lstrip(b"\0"):
                found = start + len(chunk) - len(rest)
                return found - (found - offset) % BLOCK
        return self.size

    def _resync(self, offset: int) -> int:
        """Report the damage at offset; return the offset of the next valid header, or the size of the file."""
        found = self._find_header(offset + 1)
        self.damage.append(f"no tar header at byte {offset}: bytes {offset} to {found} are lost")
        self.extended = {}
        self.ended = found == self.size
        return found

    def _find_header(self, offset: int) -> int:
        """Search at every offset: bytes may have been lost or added, and blocks shifted."""
        for start, chunk in self._chunks(offset, overlap=BLOCK - 1):  # a header may end in the next chunk
            for stated in _STATED.finditer(chunk, CHECKSUM.start):
                at = stated.start() - CHECKSUM.start
                if parse_header(chunk[at : at + BLOCK]):
                    return start + at
        return self.size

    def _chunks(self, offset: int, overlap: int) -> Iterator[tuple[int, bytes]]:
        """Yield the file from offset on. Chunks grow, so that many short gaps cost no more than one long one."""
        length = _FIRST_CHUNK
        while len(chunk := self._bytes(offset, length)) > overlap:
            yield offset, chunk
            offset += len(chunk) - overlap
            length = min(2 * length, _CHUNK)

    def _bytes(self, offset: int, length: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(length)


def _decode(name: bytes) -> str:
    """Return a name that any table can hold, also when it is not UTF-8."""
    return name.decode("utf-8", "backslashreplace")
