"""A file of an object store, read by ranges: small ones where reading jumps, growing ones where it goes on.

A request costs its delay, some 20 ms, in which some 2 MB could have come. So the headers of a tar of small images
are found by reading through them, in few large blocks, and those of a tar of large files by jumping.
"""

import io
from collections.abc import Callable

FIRST_BLOCK = 64 << 10  # bytes of the first request, and of each after a jump
LARGEST_BLOCK = 8 << 20  # bytes in memory; larger ones are hardly faster
NEAR = 1 << 20  # bytes that may be left out and reading still goes on; what lies farther is a jump


class RangedFile(io.RawIOBase):
    """A readable file at one place in which one block is in memory."""

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        """Read a file of `size` bytes by fetch(start, end), which must give all of them or raise."""
        self._fetch, self._size = fetch, size
        self._at = 0
        self._start, self._block = 0, b""  # where the block stands in the file, and its bytes
        self._length = FIRST_BLOCK // 2  # of the next request that goes on, at least, is twice that

    def readable(self) -> bool:
        """Return that the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return that the file can be read at any place."""
        return True

    def tell(self) -> int:
        """Return the place where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is fetched before it is read."""
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
        """Fill a buffer as far as the file goes, and return how far."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _cut(self, length: int, start: int | None = None) -> bytes:
        """Return what the block holds of the bytes from a place on, without a gap."""
        first = (self._at if start is None else start) - self._start
        return self._block[first : first + length] if first >= 0 else b""

    def _load(self, start: int, length: int) -> None:
        """Fetch the block that begins at start, of at least `length` bytes."""
        gap = start - self._start - len(self._block)
        goes_on = 0 <= gap <= NEAR
        self._length = min(2 * self._length, LARGEST_BLOCK) if goes_on else FIRST_BLOCK
        end = min(self._size, start + max(length, self._length))
        self._start, self._block = start, self._fetch(start, end)
