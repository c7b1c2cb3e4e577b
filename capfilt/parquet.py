"""Tables as the bytes of Parquet files."""

import io

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet: equal tables give equal bytes, however they were put together."""
    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()
