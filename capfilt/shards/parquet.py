"""A Parquet shard: a row for each sample, with the encoded image in a column (img2dataset's Parquet, HF datasets)."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from capfilt.display import few
from capfilt.errors import ShardError
from capfilt.records import Sample
from capfilt.shards.grouping import IMAGE_SUFFIXES
from capfilt.shards.samples import MAX_IMAGE_BYTES, describe, to_json
from capfilt.shards.unpack import FREE, MAX_RATIO
from capfilt.storage import exists, open_input, read_bytes, size

PARQUET_MAGIC = b"PAR1"
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
_IMAGES = (*IMAGE_SUFFIXES, "image", "img", "bytes", "image_bytes")
_KEYS = ("key", "__key__", "uid", "id")
_TEXTS = ("caption", "text", "txt", "alt_text", "TEXT", "captions")
_JSONS = ("json", "metadata")
Row = dict[str, Any]  # by column
_ROWS = 16  # in memory at once


class ParquetShard:
    """A Parquet file with a column of images; rows are read a few at a time."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.size = size(url)
        self.digest = _footer_digest(url, self.size)
        with open_input(url) as file, _blaming(url, "the footer"):
            table = _open(file)
            stated, rows = int(table.metadata.num_rows), _group_rows(table)
            _check_ratio(table, url, self.size)
            columns = dict(zip(table.schema_arrow.names, table.schema_arrow.types, strict=True))
        if twice := [name for name, count in Counter(table.schema_arrow.names).items() if count > 1]:
            raise ShardError(f"{url}: has several columns {', '.join(few(twice))}; write it with other names for them")
        if stated != sum(rows) or min(rows, default=0) < 0:
            raise ShardError(f"{url}: the footer states {stated} rows, its row groups {sum(rows)}; fetch it again")
        self.samples = stated
        self.damage = ""  # even without rows: a footer that adds up is the end of a whole file
        images = [name for name, kind in columns.items() if _holds_images(kind)]
        self._images = [name for name in _IMAGES if name in images]
        if not self._images:
            raise ShardError(f"{url}: {_no_images(url, columns, images)}")
        texts = [name for name, kind in columns.items() if _holds_text(kind)]
        lists = [name for name, kind in columns.items() if _is_list(kind) and _holds_text(kind.value_type)]
        self._key = _first(_KEYS, columns)
        self._text = _first(_TEXTS, texts)
        self._several = None if self._text else _first(_TEXTS, lists)
        self._json = _first(_JSONS, [name for name in columns if name in texts or pa.types.is_struct(columns[name])])

    def read(self, lo: int, hi: int) -> Iterator[Sample]:
        """Yield the samples of rows lo to hi - 1, a few of them in memory at a time.

        Raises:
            ShardError: the file is no longer the one that was indexed, or rows of it are damaged.
        """
        if (found := size(self.url)) != self.size or _footer_digest(self.url, found) != self.digest:
            raise ShardError(f"{self.url}: is not the file that was indexed; plan the run anew")
        with open_input(self.url) as file:
            with _blaming(self.url, "the footer"):
                table = _open(file)
            first = 0
            for number, rows in enumerate(_group_rows(table)):
                if first < hi and first + rows > lo:
                    yield from self._group(table, number, range(first, first + rows), range(lo, hi))
                first += rows

    def _group(self, table: pq.ParquetFile, number: int, stated: range, wanted: range) -> Iterator[Sample]:
        position = stated.start
        batches = table.iter_batches(_ROWS, row_groups=[number], use_threads=False)
        while True:
            with _blaming(self.url, f"row group {number}, row {position}"):
                batch = next(batches, None)
                rows = [] if batch is None else self._rows(batch)
            if batch is None:
                break
            for at, row in enumerate(rows, position):
                if at in wanted:
                    yield self._sample(at, row)
            position += len(rows)
        if position != stated.stop:
            raise ShardError(
                f"{self.url}: row group {number} holds {position - stated.start} rows, the footer says {len(stated)}; "
                f"fetch it again"
            )

    def _rows(self, batch: pa.RecordBatch) -> list[Row]:
        """Return a batch's rows, with texts as bytes: one text that is not UTF-8 must not hide the others.

        For the same reason, a value of another column that Python cannot hold is replaced by its error.
        """
        columns = {name: batch.column(name) for name in batch.schema.names}
        if self._text is not None:
            columns[self._text] = columns[self._text].cast(pa.large_binary())
        lists = [_values(column) for column in columns.values()]
        return [dict(zip(columns, values, strict=True)) for values in zip(*lists, strict=True)]

    def _sample(self, position: int, row: Row) -> Sample:
        faults = {name: value for name, value in row.items() if isinstance(value, Exception)}
        row |= dict.fromkeys(faults)
        images = {name: row.pop(name) for name in self._images}
        column = next((name for name, cell in images.items() if _encoded(cell)), self._images[0])
        text = _take(row, self._text)
        if self._several is not None:  # as in a list, the first is the sample's text; training finds all under this key
            row["captions"] = captions = [each for each in row.pop(self._several) or () if each is not None]
            text = captions[0].encode("utf-8") if captions else None
        key = None if self._key is None else row[self._key]
        status, error = _status(column, images[column], row)
        dropped = (f"{name} cannot be read and is dropped ({type(fault).__name__})" for name, fault in faults.items())
        error = "; ".join(filter(None, [error, *dropped]))
        usable = _encoded(images[column]) or b"" if status == "ok" else b""
        sample = Sample(position, str(position if key is None else key), usable, text="", status=status, error=error)
        own = _take(row, self._json)  # a string, or fields, as HF's copies of WebDatasets have them
        return describe(sample, text, own.encode("utf-8") if isinstance(own, str) else to_json({**(own or {}), **row}))


def _take(row: Row, column: str | None) -> Any:
    """Take the value of a column out of a row; None if there is no such column."""
    return None if column is None else row.pop(column)


def _status(column: str, cell: object, row: Row) -> tuple[str, str]:
    """Return the status of a row by its cell of the images' column, and what is wrong with that."""
    image = _encoded(cell)
    if image is None:
        path = cell.get("path") if isinstance(cell, Mapping) else None
        fault = f"{column} holds the path {path!r} alone; write the bytes of its file" if path else f"{column} is null"
        return "no_image", str(row.get("error_message") or fault)
    if not image or len(image) > MAX_IMAGE_BYTES:
        return ("too_large" if image else "empty_image"), f"{column} has {len(image)} bytes"
    return "ok", ""


def _encoded(value: object) -> bytes | None:
    """Return the image in a cell of a column of images; None if there is none."""
    value = value.get("bytes") if isinstance(value, Mapping) else value  # HF datasets: {bytes, path}
    return value if isinstance(value, bytes) else None


def _first(names: Iterable[str], columns: Collection[str]) -> str | None:
    """Return the first of some names that is a column; None if none is. A column's name may be empty."""
    return next((name for name in names if name in columns), None)


def _no_images(url: str, columns: Mapping[str, pa.DataType], others: Collection[str]) -> str:
    """Return what is wrong with a table in which no column has both the name and the type of images, and what to do.

    Args:
        url: of the file.
        columns: name of each column -> type.
        others: names of the columns that hold bytes.
    """
    if others:
        return f"no column with a name of images holds bytes; if {' or '.join(few(others))} has them, name it image"
    if named := _first((*_IMAGES, "images"), columns):
        told = f"no column holds image bytes; {named} is of type {columns[named]}"
        return f"{told}; write the bytes of one image a row as binary, or the paths of image files as a .jsonl"
    stem = url.removesuffix(".parquet")
    if suffix := next((suffix for suffix in TAR_SUFFIXES if exists(stem + suffix)), ""):
        tar = (stem + suffix).rpartition("/")[2]
        return f"is not a shard but the table of {tar}; give only the tars, by their folder or as *{suffix}"
    return (
        f"no column holds image bytes; it has {', '.join(few(columns))}; where this is the table of a tar shard, "
        f"give the tar; of a folder of images, pack that as a tar; else let img2dataset fetch the images "
        f"(--output_format webdataset)"
    )


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind  # what pandas calls a category
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _values(column: pa.Array) -> list[object]:
    """Return a column's values; one that Python cannot hold, such as a date of the year 300000, becomes its error."""
    try:
        values: list[object] = column.to_pylist()
    except (ValueError, OverflowError):  # which covers Arrow's errors and UTF-8's
        values = [_value(scalar) for scalar in column]
    return values


def _value(scalar: pa.Scalar) -> object:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError) as error:
        return error


def _group_rows(table: pq.ParquetFile) -> list[int]:
    return [int(table.metadata.row_group(number).num_rows) for number in range(table.num_row_groups)]


def _check_ratio(table: pq.ParquetFile, url: str, size: int) -> None:
    """Refuse a decompression bomb by its footer. If that lies, a page of at most 2 GiB is unpacked.

    Only the sums of row groups are read: pyarrow ends the process if a column's part of the footer is damaged.
    """
    for number in range(table.num_row_groups):
        unpacked = table.metadata.row_group(number).total_byte_size
        if unpacked > FREE + MAX_RATIO * size:
            raise ShardError(f"{url}: row group {number} unpacks to {unpacked} bytes, the file has {size}: not read")


def _open(file: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)


@contextmanager
def _blaming(url: str, part: str) -> Iterator[None]:
    """Turn what Arrow raises on damaged bytes into an error that names the file and the part."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk or the network, not the file
        raise ShardError(f"{url}: {part} cannot be read: {' '.join(str(error).split())}; fetch it again") from error


def _footer_digest(url: str, length: int) -> str:
    """Return a hash of the footer, which holds the offset and the statistics of every column chunk."""
    tail = read_bytes(url, max(0, length - 8))
    if not tail.endswith(PARQUET_MAGIC):
        raise ShardError(
            f"{url}: is cut at byte {length}: it begins as a Parquet file but has no footer; fetch it again"
        )
    footer = int.from_bytes(tail[:4], "little")
    return hashlib.sha256(read_bytes(url, max(0, length - 8 - footer))).hexdigest()
