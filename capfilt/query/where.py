"""Conditions that a user writes: SQL expressions on documented columns, with errors of one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from capfilt.errors import QueryError


def filtered(relation: duckdb.DuckDBPyRelation, where: str | None) -> duckdb.DuckDBPyRelation:
    """Return the rows that meet a condition; all when it is None.

    The connection of an OpenRun can read no file but the run's, so neither can the condition.

    Raises:
        QueryError: it is no condition on the relation's columns. Some such errors come only when rows are read.
    """
    if where is None:
        return relation
    with query_errors(where, relation.columns):
        return relation.filter(where)


@contextmanager
def query_errors(where: str | None, columns: list[str]) -> Iterator[None]:
    """Turn the engine's errors about a condition into a QueryError of one line; without one, raise them as they are.

    Some errors, such as a text that is no number, come only when rows are read, so the reading belongs in the block.
    """
    try:
        yield
    except duckdb.Error as error:
        if where is None:
            raise
        raise QueryError(f"where {where!r}: {_complaint(error)}; the columns are {', '.join(columns)}") from None


def _complaint(error: duckdb.Error) -> str:
    unknown = re.search(r'Referenced column "(.+)" (was )?not found', str(error))
    return f"there is no column {unknown[1]}" if unknown else str(error).partition("\n")[0]
