"""The ledger: its tables and commit records, what is left to commit, and quarantined samples."""

from capfilt.ledger.schemas import CANDIDATES, SAMPLES, SCHEMA_VERSION, SCHEMAS, candidates_table
from capfilt.ledger.tables import (
    checked_table,
    commit_path,
    committed_units,
    complete_shards,
    count_values,
    fold,
    is_complete,
    read_candidates,
    read_samples,
    read_shard_commit,
    read_unit,
    table_hashes,
    table_path,
    write_tables,
    write_unit,
)

__all__ = [
    "CANDIDATES",
    "SAMPLES",
    "SCHEMAS",
    "SCHEMA_VERSION",
    "candidates_table",
    "checked_table",
    "commit_path",
    "committed_units",
    "complete_shards",
    "count_values",
    "fold",
    "is_complete",
    "read_candidates",
    "read_samples",
    "read_shard_commit",
    "read_unit",
    "table_hashes",
    "table_path",
    "write_tables",
    "write_unit",
]
