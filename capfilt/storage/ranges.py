"""A file on an object store, read by ranges: small ones after a jump, growing ones while reading goes on.

A request waits some 20 ms, in which some 2 MB could have come. So the headers of a tar of small images are found
by reading through it in few large blocks, and those of a tar of large files by jumping from header to header.
"""

import io
from collections.abc import Callable

FIRST_BLOCK = 64 << 10  # bytes of the first request, and of each after a jump
LARGEST_BLOCK = 8 << 20  # bytes in memory; larger ones are hardly faster
NEAR = 1 << 20  # bytes; skipping no more than this counts as reading on, skipping more as a jump


class RangedFile(io.RawIOBase):
    """A readable file of which one block is in memory."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        """Read a file of `size` bytes by fetch(start, end), which must give all of them or raise."""
        self._fetch, self._size = fetch, size
        self._at = 0
        self._start, self._block = 0, b""  # offset of the block in the file, and its bytes
        self._length = FIRST_BLOCK // 2  # of the last request; the next one, if reading goes on, is of twice as many

    def readable(self) -> bool:
        """Return that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return that the file can be read at any offset."""
        return True

    def tell(self) -> int:
        """Return the offset at which the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset; nothing is fetched before the next read."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return the next `size` bytes, or all that are left; fewer only at the end of the file."""
        if self.closed:
            raise ValueError("the file is closed")
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        data = self._cut(length)
        if len(data) < length:
            start = self._at + len(data)
            self._load(start, length - len(data))
            data += self._cut(length - len(data), start)
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase names its buffer otherwise
        """Fill a buffer as far as the file goes, and return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _cut(self, length: int, start: int | None = None) -> bytes:
        """Return the bytes from an offset on, as far as the block holds them without a gap."""
        first = (self._at if start is None else start) - self._start
        return self._block[first : first + length] if first >= 0 else b""

    def _load(self, start: int, length: int) -> None:
        """Fetch the block that begins at start, of at least `length` bytes."""
        gap = start - self._start - len(self._block)
        goes_on = 0 <= gap <= NEAR
        self._length = min(2 * self._length, LARGEST_BLOCK) if goes_on else FIRST_BLOCK
        end = min(self._size, start + max(length, self._length))
        self._start, self._block = start, self._fetch(start, end)
