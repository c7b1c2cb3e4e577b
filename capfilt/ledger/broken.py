"""Complete shards whose tables are missing from the ledger's listing when a run starts: they are done again.

No file is read for that. A table is checked against the hash in its record whenever it is read, and by verify.
"""

import logging
from collections.abc import Collection, Mapping

from capfilt import storage
from capfilt.ledger.commits import TABLES
from capfilt.ledger.tables import table_path
from capfilt.runs import Run

logger = logging.getLogger(__name__)


def broken_shards(run: Run, ids: Collection[str], files: Collection[str]) -> dict[str, str]:
    """Return by id what is wrong with shards that have a record but lack a table.

    Args:
        run: the run.
        ids: of the shards that have a record.
        files: the names in the ledger's folder.
    """
    problems = ((id_, _problem(storage.join(run.ledger, id_), id_, files)) for id_ in ids)
    return {id_: problem for id_, problem in problems if problem}


def forget_broken(run: Run, broken: Mapping[str, str]) -> None:
    """Remove what is left of broken shards, so that they are done anew; their clean shards stay as they are."""
    for id_, problem in broken.items():
        logger.warning("%s; the shard is done anew", problem)
        stem = storage.join(run.ledger, id_)
        storage.remove_folder(stem)
        storage.remove(f"{stem}.json")


def _problem(stem: str, id_: str, files: Collection[str]) -> str:
    for name in TABLES:
        # checked again, since a listing takes time, in which another driver may complete a shard
        if table_path(id_, name) not in files and not storage.exists(table_path(stem, name)):
            return f"{table_path(stem, name)}: is missing"
    return ""
