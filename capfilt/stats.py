"""What a run came to, from its ledger alone: counts, scores, what a policy keeps, and how fast it went."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from capfilt.commits import add_up
from capfilt.config import Policy
from capfilt.ledger import complete_shards, read_candidates, read_record
from capfilt.policy import SOURCES, select
from capfilt.runs import Run

QUANTILES = (5, 25, 50, 75, 95)  # percent

PER_UNIT = 10_000  # scores are counted in steps of 1 / PER_UNIT, so that memory does not grow with the run
BINS = 2 * PER_UNIT + 1  # from -1 to 1

Bins = NDArray[np.int64]
Row = Sequence[object]


@dataclass(frozen=True, slots=True)
class SourceStats:
    """The candidates of one source."""

    scored: int
    kept: int
    rejected: dict[str, int]  # by reason
    scores: dict[str, dict[str, float]]  # name of the score -> {"p5": ...}, exact to 0.0001

    @property
    def noise(self) -> float:
        """The share that is rejected; 0 when there is none."""
        return 1 - self.kept / self.scored if self.scored else 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """A run under a policy. Only complete shards count."""

    run: str
    policy: str
    shards: int  # complete
    planned: int
    samples: int
    samples_kept: int  # of which at least one text is kept
    statuses: dict[str, int]  # samples by status
    text_statuses: dict[str, int]  # samples by what was the matter with their own text
    sources: dict[str, SourceStats]
    tokens: int  # generated
    seconds: dict[str, float]  # by stage, summed over the workers; stages of a worker may overlap

    @property
    def rates(self) -> dict[str, float]:
        """Samples for each second that a worker spends in a stage, by stage."""
        return {stage: self.samples / seconds for stage, seconds in self.seconds.items() if seconds}

    @property
    def tokens_per_second(self) -> float:
        """Tokens for each second of captioning; 0 when none was timed."""
        return self.tokens / self.seconds["caption"] if self.seconds.get("caption") else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all figures as plain values for json.dumps."""
        values = asdict(self)
        for name, source in self.sources.items():
            values["sources"][name]["noise"] = source.noise
        return values | {"samples_per_second": self.rates, "tokens_per_second": self.tokens_per_second}


def summarise(run: Run, policy: Policy | None = None) -> Stats:
    """Return what a run came to, shard by shard in little memory.

    Args:
        run: the run; it may be unfinished.
        policy: which candidates count as kept; the run's own by default.
    """
    policy = policy or run.config().policy
    plan, complete = run.plan(), complete_shards(run)
    shards = [shard for shard in plan if shard.id in complete]
    records = [read_record(run, shard) for shard in shards]
    outcomes: Counter[tuple[str, str]] = Counter()
    samples_kept = 0
    bins: dict[tuple[str, str], Bins] = {}
    for shard in shards:
        selection = select(read_candidates(run, shard), policy)
        samples_kept += pc.count_distinct(selection["position"].filter(selection["kept"])).as_py()
        outcomes.update(_outcomes(selection))
        for key, counts in _bins(selection).items():
            bins[key] = bins.get(key, 0) + counts
    statuses = add_up(record.statuses for record in records)
    return Stats(
        run=run.root,
        policy=policy.name,
        shards=len(shards),
        planned=len(plan),
        samples=sum(statuses.values()),
        samples_kept=samples_kept,
        statuses=statuses,
        text_statuses=add_up(record.text_statuses for record in records),
        sources={source: _source(source, outcomes, bins) for source in SOURCES if (source, "itm") in bins},
        tokens=sum(record.tokens for record in records),
        seconds=add_up(record.seconds for record in records),
    )


def render_text(stats: Stats) -> str:
    """Return the figures as tables for a terminal."""
    head = f"{stats.run}: {stats.shards} of {stats.planned} shards complete, policy {stats.policy}"
    counts: list[Row] = [["samples", "count", "share"], ["attempted", stats.samples, ""]]
    counts += [[f"  {status}", count, _share(count, stats.samples)] for status, count in stats.statuses.items()]
    counts += [["with a kept text", stats.samples_kept, _share(stats.samples_kept, stats.samples)]]
    counts += [
        [f"own text {status}", count, _share(count, stats.samples)] for status, count in stats.text_statuses.items()
    ]
    texts: list[Row] = [["source", "scored", "kept", "noise", "rejected"]]
    scores: list[Row] = [["score", *(f"p{percent}" for percent in QUANTILES)]]
    for name, source in stats.sources.items():
        reasons = ", ".join(f"{count} {reason}" for reason, count in source.rejected.items())
        texts.append([name, source.scored, source.kept, _share(source.scored - source.kept, source.scored), reasons])
        scores += [[f"{name} {score}", *quantiles.values()] for score, quantiles in source.scores.items()]
    times: list[Row] = [["stage", "seconds", "samples/s of a worker"]]
    times += [[stage, f"{seconds:.1f}", f"{stats.rates.get(stage, 0):.1f}"] for stage, seconds in stats.seconds.items()]
    tokens = f"{stats.tokens} tokens generated, {stats.tokens_per_second:.1f} for each second of captioning"
    return "\n\n".join([head, *(_columns(table) for table in (counts, texts, scores, times)), tokens])


def _outcomes(selection: pa.Table) -> dict[tuple[str, str], int]:
    """Return the number of candidates by source and reason, "" for those that are kept."""
    groups = selection.group_by(["source", "reason"]).aggregate([("position", "count")])
    return {(row["source"], row["reason"] or ""): row["position_count"] for row in groups.to_pylist()}


def _bins(selection: pa.Table) -> dict[tuple[str, str], Bins]:
    """Return how many candidates have each score, by source and name of the score."""
    bins = {}
    for source in selection["source"].unique().to_pylist():
        rows = selection.filter(pc.equal(selection["source"], source))
        for score in ("itm", "itc"):
            values = rows[score].drop_null().to_numpy()
            bins[source, score] = np.bincount(np.rint((values + 1) * PER_UNIT).astype(np.int64), minlength=BINS)
    return bins


def _source(source: str, outcomes: Mapping[tuple[str, str], int], bins: Mapping[tuple[str, str], Bins]) -> SourceStats:
    reasons = {reason: count for (name, reason), count in sorted(outcomes.items()) if name == source}
    kept = reasons.pop("", 0)
    scores = {score: _quantiles(bins[source, score]) for score in ("itm", "itc") if bins[source, score].any()}
    return SourceStats(scored=kept + sum(reasons.values()), kept=kept, rejected=reasons, scores=scores)


def _quantiles(bins: Bins) -> dict[str, float]:
    """Return the least scores that a share of all scores does not exceed."""
    below = np.cumsum(bins)
    places = np.searchsorted(below, np.array(QUANTILES) / 100 * below[-1])
    return {f"p{percent}": int(place - PER_UNIT) / PER_UNIT for percent, place in zip(QUANTILES, places, strict=True)}


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def _columns(rows: Sequence[Row]) -> str:
    """Return rows of cells as aligned columns: the first and a text to the left, numbers to the right."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in texts
    )
