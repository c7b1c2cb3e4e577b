"""The index of a tar shard as a file: with it, a part of the shard is read without a walk through all its headers.

A walk reads all of a tar of small images, since jumping from header to header takes longer than reading on. The index
has a row for each sample, and what the walk found out about the file as a whole.

The file is the SHA-256 of a Parquet file, 32 bytes, and that Parquet file.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from capfilt.parquet import read_parquet
from capfilt.records import Sample
from capfilt.shards.archive import TarShard, read_entries
from capfilt.shards.grouping import Entry
from capfilt.shards.tar import Member
from capfilt.storage import open_input

PARTS = ("image", "text", "metadata")
_ROWS = 16_384  # of a row group
_HASH = 32  # bytes
_FACTS = b"shard"  # key of the file's metadata

_MEMBER = pa.struct(
    {
        "suffix": pa.string(),  # the member's name is the sample's key and this
        "data": pa.int64(),
        "size": pa.int64(),
        "checksum": pa.int32(),
        "kind": pa.string(),
    }
)
SCHEMA = pa.schema({"key": pa.string(), "duplicate": pa.bool_(), **dict.fromkeys(PARTS, _MEMBER)})


class IndexedTar:
    """A tar shard whose headers need not be read again. Its damage is as it was when the shard was indexed."""

    def __init__(self, url: str, data: bytes) -> None:
        """Read a stored index.

        Raises:
            ValueError: the data is not an index, or was changed.
        """
        self.url = url
        stated, table = data[:_HASH], data[_HASH:]
        if hashlib.sha256(table).digest() != stated:
            raise ValueError("its bytes are not those that were written")
        self._table = read_parquet(table)
        if not self._table.schema.equals(SCHEMA):
            raise ValueError(f"its columns are {self._table.schema.names}")
        facts = json.loads(self._table.schema.metadata[_FACTS])
        self.size, self.samples = int(facts["size"]), self._table.num_rows
        self.digest, self.damage, self.version = str(facts["digest"]), str(facts["damage"]), str(facts["version"])

    def read(self, lo: int, hi: int) -> Iterator[Sample]:
        """Yield the samples of positions lo to hi - 1, one of them in memory at a time.

        Raises:
            ShardError: the file is no longer the one that was indexed.
        """
        with open_input(self.url) as file:
            yield from read_entries(self.url, file, self.size, self._entries(lo, hi), lo)

    def _entries(self, lo: int, hi: int) -> list[Entry]:
        rows = self._table.slice(lo, hi - lo)
        members = (_members(rows, part) for part in PARTS)
        entries = zip(rows["key"].to_pylist(), rows["duplicate"].to_pylist(), *members, strict=True)
        return [Entry(*entry) for entry in entries]


def index_bytes(tar: TarShard, damage: str, version: str) -> bytes:
    """Return the index of a tar as a file.

    Args:
        tar: the shard, whose headers were read.
        damage: of the shard.
        version: of the file, when its headers were read.
    """
    columns: dict[str, list[object]] = {
        "key": [entry.key for entry in tar.entries],
        "duplicate": [entry.duplicate for entry in tar.entries],
    }
    columns |= {part: [_row(entry.key, getattr(entry, part)) for entry in tar.entries] for part in PARTS}
    facts = {"version": version, "size": tar.size, "digest": tar.digest, "damage": damage}
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        use_dictionary=[f"{part}.{name}" for part in PARTS for name in ("suffix", "checksum", "kind")],
        column_encoding={"key": "DELTA_BYTE_ARRAY"}
        | {f"{part}.{name}": "DELTA_BINARY_PACKED" for part in PARTS for name in ("data", "size")},
        write_statistics=False,
        store_schema=False,
    ) as writer:
        writer.write_table(pa.table(columns, SCHEMA), row_group_size=_ROWS)
        writer.add_key_value_metadata({_FACTS: json.dumps(facts)})
    return hashlib.sha256(sink.getvalue()).digest() + sink.getvalue()


def _row(key: str, member: Member | None) -> dict[str, object] | None:
    if member is None:
        return None
    return {
        "suffix": member.name.removeprefix(key),
        "data": member.data,
        "size": member.size,
        "checksum": member.checksum,
        "kind": member.kind,
    }


def _members(rows: pa.Table, part: str) -> Iterator[Member | None]:
    """Yield one part (image, text or metadata) of each row's sample."""
    column = rows[part].combine_chunks()
    names = [f"{key}{suffix}" for key, suffix in zip(rows["key"].to_pylist(), _values(column, "suffix"), strict=True)]
    places = (_values(column, name) for name in ("data", "size", "checksum", "kind"))
    for there, name, data, size, checksum, kind in zip(column.is_valid().to_pylist(), names, *places, strict=True):
        # the archive served only to group the members, and is not stored
        yield Member(name, data, size, checksum, kind, archive=0) if there else None


def _values(column: pa.StructArray, name: str) -> list[Any]:
    return list(column.field(name).to_pylist())
