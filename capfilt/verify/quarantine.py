"""Check quarantined samples: each has a row in the ledger and a record that says the same."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from capfilt import storage
from capfilt.errors import RunError
from capfilt.ledger.quarantine import QUARANTINED, quarantine_path, quarantined
from capfilt.records import Shard
from capfilt.runs import Run


def verify_quarantine(run: Run, shard: Shard, path: str, samples: pa.Table, lo: int, hi: int) -> Iterator[str]:
    """Yield where the records and the rows of a shard's samples lo to hi disagree; path is the table's file."""
    try:
        records = {held.position: held.error for held in quarantined(run, shard) if lo <= held.position < hi}
    except (OSError, RunError) as error:
        yield str(error)
        return
    chosen = samples.filter(pc.equal(samples["status"], QUARANTINED))
    rows = dict(zip(chosen["position"].to_pylist(), chosen["error"].to_pylist(), strict=True))
    for position in sorted(records.keys() | rows.keys()):
        record = quarantine_path(run, shard, position)
        if position not in rows:
            yield f"{record}: is of a sample that is not quarantined in {path}; bootstrap with --retry-quarantined"
        elif position not in records:
            yield f"{path}: sample {position} is quarantined, and {record} is missing"
        elif records[position] != rows[position]:
            yield f"{record}: says that the sample {records[position]!r}, the ledger that it {rows[position]!r}"


def unplanned_records(run: Run, plan: Sequence[Shard]) -> Iterator[str]:
    """Yield what lies among the quarantine records and belongs to no shard of the plan."""
    ids = {shard.id for shard in plan}
    for folder, known in ((run.quarantine, ids), (storage.join(run.root, "quarantine"), {run.models})):
        for name in storage.list_folders(folder):
            if name not in known:
                yield f"{storage.join(folder, name)}: belongs to no shard of the plan"
        for name in storage.list_files(folder):
            yield f"{storage.join(folder, name)}: is not a quarantine record"
