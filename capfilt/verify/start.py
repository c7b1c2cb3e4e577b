"""Check what a run starts from: its settings, and the indexes next to its plan. Reading the plan checks the plan."""

from collections.abc import Iterator, Sequence

from capfilt import storage
from capfilt.indexing import check_index
from capfilt.records import Shard
from capfilt.runs import Run
from capfilt.runs.record import is_record_as_written, record_path


def verify_settings(run: Run) -> Iterator[str]:
    """Yield a problem if the settings have changed since the run wrote them."""
    if not is_record_as_written(run.root):
        yield (
            f"{record_path(run.root)}: has changed since it was written; put back a copy of it, or remove "
            "it and bootstrap again with exactly the settings of the run"
        )


def verify_indexes(run: Run, plan: Sequence[Shard]) -> Iterator[str]:
    """Yield which indexes cannot be read. A missing one is no problem: the shard's headers are read instead."""
    kept = set(storage.list_files(run.indexes))
    for shard in plan:
        if f"{shard.id}.index" in kept:
            yield from check_index(run, shard)
