"""Check what a run starts from: its settings, and the indexes beside its plan. Reading the plan checks the plan."""

from collections.abc import Iterator, Sequence

from capfilt import storage
from capfilt.indexing import check_index
from capfilt.records import Shard
from capfilt.runs import Run
from capfilt.runs.record import is_record_as_written, record_path


def verify_settings(run: Run) -> Iterator[str]:
    """Yield that the settings have changed since a start of the run wrote them, if they have."""
    if not is_record_as_written(run.root):
        yield (
            f"{record_path(run.root)}: has changed since it was written; put back a copy of it, or remove "
            "it and bootstrap again with the very settings of the run"
        )


def verify_indexes(run: Run, plan: Sequence[Shard]) -> Iterator[str]:
    """Yield which indexes cannot be read. One that is missing is no fault: the shard's headers are read instead."""
    kept = set(storage.list_files(run.indexes))
    for shard in plan:
        if f"{shard.id}.index" in kept:
            yield from check_index(run, shard)
