"""A list of image files with captions (CSV, TSV or JSONL); paths are relative to the list's folder."""

import errno
import hashlib
import posixpath
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import PurePosixPath

from capfilt.display import listed
from capfilt.errors import ShardError
from capfilt.records import Sample
from capfilt.shards.rows import Row, json_rows, table_rows
from capfilt.shards.samples import MAX_IMAGE_BYTES, NO_SAMPLES, describe, to_json
from capfilt.storage import join, read_bytes, size

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
LIST_SUFFIXES = (*_DELIMITERS, ".jsonl")
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
_LISTED = 5  # damages described in full


class ListShard:
    """A list. It is read as a whole, its images one by one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = url.rpartition("/")[0] if "/" in url else "."
        data = read_bytes(url)
        self.size = len(data)
        self.digest = hashlib.sha256(data).hexdigest()
        if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in data[:2]:
            raise ShardError(f"{url}: begins like UTF-16; save it as UTF-8")
        # Bytes that are not UTF-8 survive as surrogates, so that one bad caption does not hide the others.
        text = data.decode("utf-8-sig", "surrogateescape")
        try:
            self._rows = json_rows(text) if url.endswith(".jsonl") else table_rows(text, _DELIMITERS[url[-4:]])
        except ValueError as error:
            raise ShardError(f"{url}: {error}") from None
        self.samples = len(self._rows)
        problems = [f"{row.place}: {row.problem}" for row in self._rows if row.problem]
        self.damage = "; ".join(listed(problems, _LISTED)) if self._rows else NO_SAMPLES

    def read(self, lo: int, hi: int) -> Iterator[Sample]:
        """Yield the samples of positions lo to hi - 1, one of them in memory at a time.

        Raises:
            ShardError: the list is no longer the one that was indexed.
        """
        if (found := size(self.url)) != self.size:
            raise ShardError(f"{self.url}: has {found} bytes, had {self.size} when it was indexed; plan the run anew")
        for position in range(lo, hi):
            yield self._sample(position, self._rows[position])

    def _sample(self, position: int, row: Row) -> Sample:
        problem = row.problem or "names no image; write its path as a string"
        image, status, error = b"", "bad_row", f"{row.place}: {problem}"
        if row.path and not row.problem:
            image, status, error = self._image(row.path)
        key = str(position) if row.path is None else _readable(row.path)
        sample = Sample(position, posixpath.splitext(key)[0], image, text="", status=status, error=error)
        raw = None if row.text is None else row.text.encode("utf-8", "surrogatepass")
        values = {name: _readable(value) if isinstance(value, str) else value for name, value in row.values.items()}
        return describe(sample, raw, to_json(values))

    def _image(self, path: str) -> tuple[bytes, str, str]:
        """Return an image, the status of its sample, and what was found."""
        if fault := _fault(path):
            return b"", "outside_folder", f"{_readable(path)} {fault}; write paths relative to the list's folder"
        url = join(self._folder, path)
        try:
            length = size(url)
            data = read_bytes(url) if length <= MAX_IMAGE_BYTES else b""
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if isinstance(error, OSError) and not isinstance(error, _ABSENT) and error.errno not in _NO_NAME:
                raise  # the disk or the network, not the list
            remedy = "; write / between folders" if "\\" in path else ""
            return b"", "no_image", f"{_readable(path)[:100]}: {type(error).__name__}{remedy}"
        if not data:
            return b"", ("too_large" if length else "empty_image"), f"{_readable(path)} has {length} bytes"
        return data, "ok", ""


def _fault(path: str) -> str:
    """Return why a path is refused, by its text alone: links are followed, so where it leads is not checked."""
    parts = PurePosixPath(path.replace("\\", "/"))
    if "://" in path or "::" in path:  # fsspec's chains
        return "is a URL"
    if parts.is_absolute():
        return "is absolute"
    return "has .. in it" if ".." in parts.parts else ""


def _readable(text: str) -> str:
    """Return a text without surrogates, which no table can hold."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")
