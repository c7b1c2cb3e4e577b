"""The engine of queries: DuckDB, with access to the given files and nothing else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb

MEMORY = "2GiB"
"""Memory limit of the engine. Queries that need more spill to disk, and leave room for other work."""


def connect(files: Mapping[str, Sequence[str]], spill: Path) -> duckdb.DuckDBPyConnection:
    """Return a connection that can read these Parquet files, as tables, and reach nothing else.

    Args:
        files: name of a table -> its files, all of one schema.
        spill: a folder for what does not fit into memory; it is made when needed.
    """
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": MEMORY,
            "python_enable_replacements": False,  # a name in a query is a table here, never a variable of a caller
            "temp_directory": str(spill),
        }
    )
    connection.execute("SET allowed_paths = ?", [[path for paths in files.values() for path in paths]])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET enable_progress_bar = false")  # python -c would print it between the answers
    connection.execute("SET lock_configuration = true")
    for name, paths in files.items():
        connection.read_parquet(paths).create_view(name)
    return connection
