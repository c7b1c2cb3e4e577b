"""Complete shards that are not whole: seen when a run starts, and done anew.

A table is not read for that. What is in it is held against the hash of its record whenever it is read, and by verify.
"""

import logging
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from capfilt import storage
from capfilt.errors import RunError
from capfilt.ledger.commits import TABLES, read_commit
from capfilt.ledger.tables import table_path
from capfilt.runs import Run

_READERS = 32  # threads that read records; they wait for the store

logger = logging.getLogger(__name__)


def broken_shards(run: Run, ids: Collection[str], files: Collection[str]) -> dict[str, str]:
    """Return what is wrong with complete shards that are not whole, by id: a table is gone, or the record is none.

    Args:
        run: the run.
        ids: of the shards that have a record.
        files: the names in the ledger's folder.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        problems = pool.map(lambda id_: _problem(storage.join(run.ledger, id_), id_, files), ids)
        return {id_: problem for id_, problem in zip(ids, problems, strict=True) if problem}


def forget_broken(run: Run, broken: Mapping[str, str]) -> None:
    """Remove what there is of broken shards, so that they are done anew; what was exported of them stays as it is."""
    for id_, problem in broken.items():
        logger.warning("%s; the shard is done anew", problem)
        stem = storage.join(run.ledger, id_)
        storage.remove_folder(stem)
        storage.remove(f"{stem}.json")


def _problem(stem: str, id_: str, files: Collection[str]) -> str:
    for name in TABLES:
        # asked for again, since a listing is no moment: another driver may complete a shard while it goes on
        if table_path(id_, name) not in files and not storage.exists(table_path(stem, name)):
            return f"{table_path(stem, name)}: is missing"
    try:
        read_commit(f"{stem}.json")
    except RunError:
        return f"{stem}.json: is no commit record"
    return ""
