"""A run's ledger as tables to query with SQL, Arrow or pandas."""

from capfilt.query.columns import COLUMNS
from capfilt.query.opened import OpenRun, open_run
from capfilt.query.where import filtered

__all__ = ["COLUMNS", "OpenRun", "filtered", "open_run"]
