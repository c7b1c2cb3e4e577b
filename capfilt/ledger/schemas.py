"""The columns of the ledger's two tables."""

from collections.abc import Sequence

import pyarrow as pa

from capfilt.records import Candidate, SampleRecord

SCHEMA_VERSION = "1"

SAMPLES = pa.schema(
    {
        "shard": pa.string(),
        "position": pa.int64(),
        "key": pa.string(),
        "image_sha256": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
        "url": pa.string(),
        "metadata": pa.string(),
        "status": pa.string(),
        "text_status": pa.string(),
        "error": pa.string(),
    }
)

CANDIDATES = pa.schema(
    {
        "shard": pa.string(),
        "position": pa.int64(),
        "key": pa.string(),
        "source": pa.string(),
        "caption_index": pa.int32(),
        "text": pa.string(),
        "captioner": pa.string(),
        "round": pa.int32(),
        "seed": pa.int64(),
        "tokens": pa.int32(),
        "logprob": pa.float32(),
        "itm": pa.float32(),
        "itc": pa.float32(),
    }
)

SCHEMAS = {"samples": SAMPLES, "candidates": CANDIDATES}


def samples_table(shard: str, records: Sequence[SampleRecord]) -> pa.Table:
    """Return records of a shard as a table."""
    return _table(shard, records, SAMPLES)


def candidates_table(shard: str, candidates: Sequence[Candidate]) -> pa.Table:
    """Return candidates of a shard as a table, as policy.select takes it."""
    return _table(shard, candidates, CANDIDATES)


def _table(shard: str, rows: Sequence[SampleRecord] | Sequence[Candidate], schema: pa.Schema) -> pa.Table:
    """Return rows as a table; their fields are in the order of the columns after that of the shard."""
    columns = zip(*rows, strict=True) if rows else ((),) * (len(schema) - 1)
    return pa.table([[shard] * len(rows), *columns], schema=schema)
