"""Unpack a gzip-compressed shard, since a compressed one cannot be read at an offset."""

import os
import tempfile
import weakref
import zlib
from contextlib import suppress
from typing import BinaryIO, cast

from capfilt.storage import open_input
from capfilt.storage.ranges import RangedFile

_CHUNK = 1 << 20
_GZIP = zlib.MAX_WBITS | 16  # tells zlib to expect a gzip header
MAX_RATIO = 100  # of unpacked to packed bytes; images hardly shrink, so only a decompression bomb comes near
FREE = 64 << 20  # bytes that even the smallest file may unpack to


class Unpacked:
    """The unpacked bytes, in a temporary file without a name: also a process that is killed leaves nothing behind."""

    def __init__(self, url: str) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (lives with self)
        weakref.finalize(self, self._file.close)
        self.size = 0
        with open_input(url) as packed:
            self.damage = self._fill(packed)
        self._file.flush()

    def open(self) -> BinaryIO:
        """Open the unpacked bytes for reading."""
        return cast(BinaryIO, RangedFile(self._fetch, self.size))

    def _fetch(self, start: int, end: int) -> bytes:
        return os.pread(self._file.fileno(), end - start, start)

    def _fill(self, packed: BinaryIO) -> str:
        """Unpack the gzip streams of a file one after another; return what is damaged, if anything."""
        inflate = zlib.decompressobj(_GZIP)
        taken, data = 0, b""
        while data := data or packed.read(_CHUNK):
            if inflate.eof:
                inflate = zlib.decompressobj(_GZIP)
            before = inflate.copy()
            try:
                self._write(inflate.decompress(data, _CHUNK))
            except zlib.error as error:
                self._write_up_to_damage(before, data)
                return f"the gzip data is damaged behind byte {taken} ({error}): what followed is missing"
            left = inflate.unconsumed_tail or inflate.unused_data
            taken += len(data) - len(left)
            data = left.lstrip(b"\0") if inflate.eof else left  # zeros may pad a stream
            if self.size > FREE + MAX_RATIO * taken:
                return f"unpacks from {taken} to over {self.size} bytes, and is not read further"
        self._write(inflate.flush())
        return "" if inflate.eof else f"the gzip data is cut at byte {taken}: what followed is missing"

    def _write_up_to_damage(self, inflate: "zlib._Decompress", data: bytes) -> None:
        """Write what precedes the damage in data, byte by byte, since a call that raises returns nothing."""
        with suppress(zlib.error):
            for at in range(len(data)):
                self._write(inflate.decompress(data[at : at + 1], _CHUNK))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
