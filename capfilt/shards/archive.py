"""A tar shard, plain or compressed with gzip: its samples by position."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import BinaryIO

from capfilt.errors import ShardError
from capfilt.records import Sample
from capfilt.shards.grouping import Entry, group
from capfilt.shards.headers import BLOCK, parse_header
from capfilt.shards.samples import MAX_IMAGE_BYTES, MAX_METADATA_BYTES, MAX_TEXT_BYTES, NO_SAMPLES, describe
from capfilt.shards.tar import Kind, Member, index_tar
from capfilt.shards.unpack import Unpacked
from capfilt.storage import open_input, size

GZIP_MAGIC = b"\x1f\x8b"
_FOREIGN = {  # first bytes of known files that are no tar -> what they are, and what to do
    GZIP_MAGIC: ("packed twice by gzip", "unpack it once (gzip -d)"),
    b"(\xb5/\xfd": ("packed by zstd", "unpack it (zstd -d), or pack it by gzip"),
    b"\xfd7zXZ\0": ("packed by xz", "unpack it (xz -d), or pack it by gzip"),
    b"BZh": ("packed by bzip2", "unpack it (bzip2 -d), or pack it by gzip"),
    b'\x04"M\x18': ("packed by lz4", "unpack it (lz4 -d), or pack it by gzip"),
    b"PK\x03\x04": ("a zip archive", "pack its files as a tar"),
    b"PARE": ("an encrypted Parquet file", "write it without encryption"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch it again, by git lfs pull"),
}
_NO_FILES: dict[Kind, str] = {  # kind of a member -> why it holds no image, and what to do
    "sparse": "is sparse, and is not put together; pack it without --sparse",
    "hard link": "is a hard link to a file that does not stand before it in the tar; pack it by tar --hard-dereference",
    "symbolic link": "is a symbolic link, and is not followed; pack the file that it leads to by tar --dereference",
    "other": "is a device, and is not read",
}
_EMPTY = range(2 * BLOCK, 20 * BLOCK + 1, BLOCK)  # sizes of a tar without members: an end mark, padded to a record


class TarShard:
    """A tar whose headers were read; an image is read with its sample."""

    def __init__(self, url: str, head: bytes) -> None:
        self.url = url
        self.size = size(url)
        self.packed = head.startswith(GZIP_MAGIC)
        unpacked = Unpacked(url) if self.packed else None
        self._open: Callable[[], BinaryIO] = unpacked.open if unpacked else partial(open_input, url)
        self._length = unpacked.size if unpacked else self.size
        with self._open() as file:
            if foreign := _foreign(file.read(BLOCK)):  # before a walk through all of it in search of headers
                raise ShardError(f"{url}: is not a tar but {foreign}")
            members, damage = index_tar(file, self._length)
            # A clean shard may be empty. A longer file of zeros was allocated, and its bytes never came.
            empty = not members and self._length in _EMPTY
        if damage and not members:
            raise ShardError(f"{url}: holds no tar member, begins with {head[:40]!r}: {damage}; fetch it again")
        self.entries, self.passed_over = group(members)
        self.samples = len(self.entries)
        self.digest = _digest(members)
        unusable = f"{NO_SAMPLES}: none of its {len(members)} members is an image or a text"
        unusable = "" if self.entries or empty else unusable
        self.damage = "; ".join(filter(None, [unpacked.damage if unpacked else "", damage, unusable]))

    def read(self, lo: int, hi: int) -> Iterator[Sample]:
        """Yield the samples of positions lo to hi - 1, one of them in memory at a time.

        Raises:
            ShardError: the file is no longer the one that was indexed.
        """
        with self._open() as file:
            yield from read_entries(self.url, file, self._length, self.entries[lo:hi], lo)


def _foreign(head: bytes) -> str:
    """Return what a file with this head is, and what to do; empty if it may be a tar, which may begin with any name."""
    if parse_header(head):
        return ""
    return next(("; ".join(told) for magic, told in _FOREIGN.items() if head.startswith(magic)), "")


def read_entries(url: str, file: BinaryIO, length: int, entries: Iterable[Entry], lo: int) -> Iterator[Sample]:
    """Yield the samples of some entries of a tar, one of them in memory at a time.

    Args:
        url: of the tar, for people.
        file: the tar itself, not compressed.
        length: bytes of the file when it was indexed.
        entries: of consecutive samples.
        lo: position of the first of them.

    Raises:
        ShardError: the file is no longer the one that was indexed.
    """
    if (found := file.seek(0, os.SEEK_END)) != length:
        raise ShardError(f"{url}: has {found} bytes, had {length} when it was indexed; plan the run anew")
    for position, entry in enumerate(entries, lo):
        yield _sample(url, file, position, entry)


def _sample(url: str, file: BinaryIO, position: int, entry: Entry) -> Sample:
    status, error = _image_status(entry)
    lost = [part.name for part in (entry.text, entry.metadata) if part and part.kind != "file"]
    unread = (f"{name} is cut off or is not a regular file, and is not read" for name in lost)
    error = "; ".join(filter(None, [error, *unread]))
    image = _part(url, file, entry.image, MAX_IMAGE_BYTES) if status != "too_large" else None
    text = _part(url, file, entry.text, MAX_TEXT_BYTES + 1)
    metadata = _part(url, file, entry.metadata, MAX_METADATA_BYTES + 1)
    sample = Sample(position, entry.key, image or b"", text="", status=status, error=error)
    return describe(sample, text, metadata)


def _part(url: str, file: BinaryIO, member: Member | None, limit: int) -> bytes | None:
    return _bytes(url, file, member, limit) if member and member.kind == "file" else None


def _bytes(url: str, file: BinaryIO, member: Member, limit: int) -> bytes:
    """Return a member's bytes, up to a limit, after a check that its header is still before them."""
    length = min(member.size, limit)
    file.seek(member.data - BLOCK)
    found = file.read(BLOCK + length)
    header = parse_header(found[:BLOCK])
    if header is None or header.checksum != member.checksum:
        raise ShardError(
            f"{url}: the header of {member.name} is gone from byte {member.data - BLOCK}: "
            f"the file changed after it was indexed; plan the run anew"
        )
    if len(found) < BLOCK + length:
        raise ShardError(f"{url}: ends inside {member.name}, {len(found)} bytes after {member.data - BLOCK}")
    return found[BLOCK:]


def _image_status(entry: Entry) -> tuple[str, str]:
    """Return the status of a sample by its members alone, and what was found."""
    other = entry.image if entry.image and entry.image.kind == "unknown suffix" else None
    image = None if other else entry.image
    if image is not None and image.kind == "cut":
        return "truncated_member", f"the file ends inside {image.name}"
    if image is not None and image.kind != "file":
        return "not_a_file", f"{image.name} {_NO_FILES[image.kind]}"
    if image is not None and image.size > MAX_IMAGE_BYTES:
        return "too_large", f"{image.name} has {image.size} bytes"
    if entry.duplicate:
        return "duplicate_key", "an earlier sample of the shard has the same key"
    if image is None:
        instead = f"; {other.name} has no suffix that is read" if other else ""
        return "no_image", f"no member with its key is an image{instead}"
    return ("ok", "") if image.size else ("empty_image", f"{image.name} has no bytes")


def _digest(members: Iterable[Member]) -> str:
    """Return a hash of all members' names, offsets, sizes and header checksums, which cover their times too."""
    listing = "\n".join(f"{member.data} {member.size} {member.checksum} {member.name}" for member in members)
    return hashlib.sha256(listing.encode()).hexdigest()
