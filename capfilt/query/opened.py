"""An open run: its committed ledger under a policy, as relations of DuckDB."""

import html
import os
import shlex
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import accumulate, groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from capfilt import storage
from capfilt.config import Policy
from capfilt.errors import QueryError
from capfilt.ledger import complete_shards
from capfilt.ledger.commits import Commit, add_up
from capfilt.query.committed import draw_shards, read_parts
from capfilt.query.engine import connect
from capfilt.query.facts import tables
from capfilt.query.languages import Detect, detector
from capfilt.records import CONTROL, Shard
from capfilt.runs import Run, load_policy, load_run
from capfilt.storage.scratch import Scratch

SAMPLES_PER_FILE = 50_000  # of a scratch file: enough for long columns, few enough to hold in memory once per thread
QUICK_SAMPLES = 6_000_000  # looked at if no share is asked for: queries of so many take seconds
MAX_THREADS = 16  # each holds the samples of a scratch file in memory

_VARIED = {
    "samples": ("image_sha256", "url", "key", "error"),
    "candidates": ("text", "key"),
    "controls": ("text", "key"),
}
"""Table -> its columns whose values seldom repeat."""

_OUTCOMES = """
    SELECT * FROM candidates
    UNION ALL BY NAME
    SELECT shard, position, key, width, height, format, domain, status FROM samples WHERE status <> 'ok'
"""


class OpenRun:
    """A run's ledger under a policy, ready for queries. Close it, or use it in a with statement.

    `samples`, `candidates`, `outcomes` and `controls` are relations of DuckDB: `.df()` gives pandas and
    `.to_arrow_table()` Arrow; `.filter("itm > 0.9")`, `.aggregate("source, count(*)")` and `.limit(10)` give other
    relations, which are computed only when they are shown. `sql` takes whole queries. COLUMNS has the meaning of each
    column.

    Only what is committed counts, and its hashes are checked. It is read once, judged by policy.select, and written to
    a scratch folder, from which the engine answers within its memory limit, however large the run is.
    """

    def __init__(
        self,
        run: Run,
        policy: Policy,
        shards: Sequence[Shard],
        complete: Collection[str],
        available: int,
        planned: int,
        languages: bool,
    ) -> None:
        self.run, self.policy, self.planned = run, policy, planned
        self._drawn, self._available = len(shards), available
        self._complete = {shard.id for shard in shards if shard.id in complete}
        with ExitStack() as opening:  # closes what is open if the rest fails or is interrupted
            self._scratch = Scratch()
            opening.callback(self._scratch.cleanup)
            folder = Path(self._scratch.name)
            self.commits, self.files = _lay_down(run, policy, shards, folder, languages)
            self.connection = opening.enter_context(connect(self.files, folder / "spill"))
            self.connection.execute(f"CREATE VIEW outcomes AS {_OUTCOMES}")
            self._open = opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and remove the scratch folder."""
        self._open.close()

    @property
    def samples(self) -> duckdb.DuckDBPyRelation:
        """A row for each sample that was attempted."""
        return self.connection.table("samples")

    @property
    def candidates(self) -> duckdb.DuckDBPyRelation:
        """A row for each candidate, with the policy's decision."""
        return self.connection.table("candidates")

    @property
    def outcomes(self) -> duckdb.DuckDBPyRelation:
        """The candidates, and a row without a text for each sample that was not scored."""
        return self.connection.table("outcomes")

    @property
    def controls(self) -> duckdb.DuckDBPyRelation:
        """A row for each control text, which is not a candidate of the image that it was scored with."""
        return self.connection.table("controls")

    def sql(self, query: str) -> duckdb.DuckDBPyRelation:
        """Return the result of a query of the tables samples, candidates, outcomes and controls."""
        return self.connection.sql(query)

    @property
    def share(self) -> float:
        """The share of the available shards that is looked at."""
        return self._drawn / self._available if self._available else 1.0

    @property
    def extent(self) -> str:
        """Which shards are looked at, for people."""
        if self._drawn < self._available:
            return f"{self._drawn:,} of {self._available:,} shards, drawn by their ids"
        damaged = len({commit.shard for commit in self.commits if commit.damage})
        in_work = len({commit.shard for commit in self.commits} - self._complete)
        told = f"{len(self._complete):,} of {self.planned:,} shards complete"
        told += f", {damaged:,} of them damaged and read in part" if damaged else ""
        return told + (f", and what is committed of {in_work:,} in work" if in_work else "")

    @property
    def nothing(self) -> str:
        """Why there is nothing to look at, and which command says more."""
        root, ledger = shlex.quote(self.run.root), self.run.ledger
        files = (name for id_ in storage.list_folders(ledger) for name in storage.list_files(storage.join(ledger, id_)))
        if any(name.endswith(".json") for name in files):
            return f"no shard is complete, and some are in work; capfilt stats {root} --unfinished counts their units"
        return f"no shard is complete, nor any unit of one; capfilt status {root} tells why"

    @property
    def figures(self) -> dict[str, str]:
        """The run, the policy, and how much of the run is looked at, for people."""
        counts = add_up(commit.candidates for commit in self.commits)
        texts = sum(count for source, count in counts.items() if source != CONTROL)
        return {
            "run": self.run.root,
            "policy": self.policy.name,
            "shards": self.extent.replace(" shards", ""),
            "samples": f"{sum(commit.hi - commit.lo for commit in self.commits):,}",
            "candidates": f"{texts:,}",
        }

    def __repr__(self) -> str:
        return f"OpenRun({', '.join(f'{name}: {value}' for name, value in self.figures.items())})"

    def _repr_html_(self) -> str:
        rows = (f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in self.figures.items())
        return f"<table>{''.join(rows)}</table>"


def open_run(
    path: Path | str,
    policy: Policy | Path | str | None = None,
    *,
    unfinished: bool = False,
    share: float | None = 1.0,
    languages: bool = False,
) -> OpenRun:
    """Open a run's ledger for queries.

    Args:
        path: folder or URL of the run, which may be unfinished.
        policy: which candidates count as kept, or the path of its YAML; the run's own by default.
        unfinished: include the committed units of incomplete shards.
        share: of the shards, drawn by their ids; None: all, or about as many as hold QUICK_SAMPLES if there are more.
        languages: add the column `language`; it takes about ten times as long as all the rest.

    Raises:
        RunError: there is no run, or a file of its ledger is not what was committed.
        QueryError: share is not in (0, 1], or no detector of languages is installed.
        ConfigError: the file of the policy is missing, or holds none.
    """
    if isinstance(policy, Path | str):
        policy = load_policy(Path(policy))
    if share is not None and not 0 < share <= 1:
        raise QueryError(f"share is {share}; give one in (0, 1]")
    run = load_run(str(path))
    plan, complete = run.plan(), complete_shards(run)
    available = [shard for shard in plan if unfinished or shard.id in complete]
    if share is None:
        share = min(1.0, QUICK_SAMPLES / max(1, sum(shard.samples for shard in available)))
    drawn = draw_shards(available, share)
    return OpenRun(run, policy or run.config().policy, drawn, complete, len(available), len(plan), languages)


def _lay_down(
    run: Run, policy: Policy, shards: Sequence[Shard], folder: Path, languages: bool
) -> tuple[list[Commit], dict[str, list[str]]]:
    """Write the scratch files; return the commit records that they come from, and the files by table."""
    detect = detector() if languages else None
    starts = accumulate((shard.samples for shard in shards), initial=0)
    groups = groupby(zip(starts, shards, strict=False), lambda pair: pair[0] // SAMPLES_PER_FILE)
    batches = [[shard for _, shard in group] for _, group in groups]
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        jobs = [
            pool.submit(_write_batch, run, policy, batch, folder / f"{n:06d}", detect)
            for n, batch in enumerate(batches or [[]])
        ]
        try:
            commits = [commit for job in jobs for commit in job.result()]
        finally:
            pool.shutdown(cancel_futures=True)
    files = {name: [f"{folder}/{n:06d}.{name}.parquet" for n in range(len(jobs))] for name in _VARIED}
    return commits, files


def _write_batch(run: Run, policy: Policy, shards: Sequence[Shard], stem: Path, detect: Detect | None) -> list[Commit]:
    parts = [part for shard in shards for part in read_parts(run, shard)]
    for name, table in tables(parts, policy, detect).items():
        _write(table, f"{stem}.{name}.parquet", _VARIED[name])
    return [part.commit for part in parts]


def _write(table: pa.Table, path: str, varied: Sequence[str]) -> None:
    """Write a table so that it is quick to read; `varied` are the columns whose values seldom repeat."""
    alike = [name for name in table.column_names if name not in varied]
    pq.write_table(table, path, compression="lz4", use_dictionary=alike)
