"""Tables as the bytes of Parquet files."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet: equal tables give equal bytes, whatever their chunks."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table in a Parquet file, or some columns of it, with the checksums of its pages checked.

    Only this thread reads: the threads of pyarrow's read_table release the file a little later, and abort the process
    if the interpreter ends before that, as it may after the last file of a verify.

    Raises:
        pa.ArrowException, OSError: the data is no Parquet file, or damaged.
    """
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True)
    return file.read(columns, use_threads=False)
