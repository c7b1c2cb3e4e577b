"""A list of image files with captions (CSV, TSV or JSONL); paths are relative to the list's folder."""

import csv
import errno
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from capfilt.errors import ShardError
from capfilt.records import Sample
from capfilt.shards.samples import MAX_IMAGE_BYTES, describe, to_json
from capfilt.storage import join, read_bytes, size

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl")
_PATHS = ("image", "file_name", "filename", "filepath", "file", "path", "image_path", "image_name", "img")
_TEXTS = ("caption", "captions", "text", "txt", "alt_text", "title")
_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_NO_NAME = (errno.ENAMETOOLONG, errno.ELOOP)
_LISTED = 5  # damages told in full


class Row(NamedTuple):
    """One line of a list."""

    line: int
    values: Mapping[str, object]
    problem: str = ""  # why the line cannot be understood


class ListShard:
    """A list, read whole; the images are read one by one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._folder = url.rpartition("/")[0] if "/" in url else "."
        data = read_bytes(url)
        self.size = len(data)
        self.digest = hashlib.sha256(data).hexdigest()
        # Bytes that are not UTF-8 survive as surrogates, so that one bad caption does not hide the others.
        text = data.decode("utf-8-sig", "surrogateescape")
        self._rows = list(_jsonl_rows(text) if url.endswith(".jsonl") else _csv_rows(text, url.endswith(".tsv")))
        self.samples = len(self._rows)
        names = {name for row in self._rows for name in row.values}
        self._path = next((name for name in _PATHS if name in names), "")
        self._text = next((name for name in _TEXTS if name in names), "")
        if not self._path:
            raise ShardError(f"{url}: no column names the image files; name it {_PATHS[0]}; found {sorted(names)[:10]}")
        self.damage = _tell([f"line {row.line}: {row.problem}" for row in self._rows if row.problem])

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
        path = row.values.get(self._path)
        image, status, error = b"", "bad_row", f"line {row.line}: {row.problem or 'names no image'}"
        if not row.problem and isinstance(path, str) and path:
            image, status, error = self._image(path)
        key = _readable(path) if isinstance(path, str) else str(position)
        sample = Sample(position, key.rpartition(".")[0] or key, image, text="", status=status, error=error)
        text = _first(row.values.get(self._text))
        raw = None if text is None else text.encode("utf-8", "surrogatepass")
        values = {name: _readable(value) if isinstance(value, str) else value for name, value in row.values.items()}
        return describe(sample, raw, to_json(values))

    def _image(self, path: str) -> tuple[bytes, str, str]:
        """Return an image, the status of its sample, and what was found."""
        parts = PurePosixPath(path.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or "://" in path or "::" in path:  # fsspec's chains
            return (
                b"",
                "outside_folder",
                f"{_readable(path)} is not below the list's folder; write paths relative to it",
            )
        url = join(self._folder, path)
        try:
            length = size(url)
            data = read_bytes(url) if length <= MAX_IMAGE_BYTES else b""
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            if isinstance(error, OSError) and not isinstance(error, _ABSENT) and error.errno not in _NO_NAME:
                raise  # the disk or the network, not the list
            return b"", "no_image", f"{_readable(path)[:100]}: {type(error).__name__}"
        if not data:
            return b"", ("too_large" if length else "empty_image"), f"{_readable(path)} has {length} bytes"
        return data, "ok", ""


def _csv_rows(text: str, tabs: bool) -> Iterator[Row]:
    """Yield the lines below the head of a table. A quote that never closes is an error, not one long caption."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",", strict=True)
    head: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, {}, str(error))
            continue
        if not head:
            head = cells
        elif len(cells) > len(head):
            yield Row(line, dict(zip(head, cells, strict=False)), f"has {len(cells)} cells, the head {len(head)}")
        elif cells:
            yield Row(line, dict(zip(head, cells, strict=False)))


def _jsonl_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(number, {}, f"is not JSON: {error}")
            continue
        yield Row(number, values) if isinstance(values, dict) else Row(number, {}, "is no JSON object")


def _first(value: object) -> str | None:
    """Return the text of a cell. Of several captions the first is the sample's; all stay in its metadata."""
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def _readable(text: str) -> str:
    """Return a text without surrogates, which no table can hold."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


def _tell(problems: list[str]) -> str:
    more = len(problems) - _LISTED
    return "; ".join(problems[:_LISTED] + ([f"and {more} more"] if more > 0 else []))
