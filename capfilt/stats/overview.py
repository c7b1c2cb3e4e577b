"""The figures of a whole run: samples, candidates by source, scores, what the policy keeps, and speed."""

from dataclasses import asdict, dataclass

import duckdb

from capfilt.ledger.commits import add_up
from capfilt.policy import SOURCES
from capfilt.query import OpenRun, filtered
from capfilt.query.where import query_errors
from capfilt.stats.scores import SCORES, Bins, bands, count_scores, quantiles


@dataclass(frozen=True, slots=True)
class SourceStats:
    """The candidates of one source."""

    scored: int
    kept: int
    rejected: dict[str, int]  # by reason
    scores: dict[str, dict[str, float]]  # name of the score -> {"p5": ...}, exact to 0.0001
    bands: dict[str, list[int]]  # name of the score -> texts in each twentieth of its range, the lowest first

    @property
    def noise(self) -> float:
        """The share that is rejected; 0 if there are no texts."""
        return 1 - self.kept / self.scored if self.scored else 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """A run under a policy. Only what is committed counts."""

    run: str
    policy: str
    where: str | None  # the condition on all that follows
    shards: int  # complete ones, and those with committed units if these count
    planned: int
    share: float  # of these shards that was looked at
    extent: str  # which shards were looked at, for people
    samples: int
    samples_kept: int  # with at least one kept text
    statuses: dict[str, int]  # samples by status
    text_statuses: dict[str, int]  # samples by the state of their own text; empty under a condition
    sources: dict[str, SourceStats]
    tokens: int  # generated
    seconds: dict[str, float]  # by stage, summed over the workers; stages may overlap; empty under a condition

    @property
    def rates(self) -> dict[str, float]:
        """Samples per second that a worker spends in a stage, by stage."""
        return {stage: self.samples / seconds for stage, seconds in self.seconds.items() if seconds}

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of captioning; 0 if none was timed."""
        return self.tokens / self.seconds["caption"] if self.seconds.get("caption") else 0.0

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        values = asdict(self)
        for name, source in self.sources.items():
            values["sources"][name]["noise"] = source.noise
        return values | {"samples_per_second": self.rates, "tokens_per_second": self.tokens_per_second}


def summarise(opened: OpenRun, where: str | None = None) -> Stats:
    """Return the figures of a run.

    Args:
        opened: the run; its policy decides what is kept.
        where: a condition on the columns of opened.outcomes. A sample counts if one of its rows meets it.

    Raises:
        QueryError: where is no condition.
    """
    rows = filtered(opened.outcomes, where)
    with query_errors(where, rows.columns):
        statuses, kept, tokens = _committed(opened) if where is None else _matching(rows)
        outcomes = rows.filter("source IS NOT NULL").aggregate("source, coalesce(reason, '') AS reason, count(*) AS n")
        counts = {(source, reason): count for source, reason, count in outcomes.fetchall()}
        bins = count_scores(rows)
    whole = opened.commits if where is None else []
    return Stats(
        run=opened.run.root,
        policy=opened.policy.name,
        where=where,
        shards=len({commit.shard for commit in opened.commits}),
        planned=opened.planned,
        share=opened.share,
        extent=opened.extent,
        samples=sum(statuses.values()),
        samples_kept=kept,
        statuses=statuses,
        text_statuses=add_up(commit.text_statuses for commit in whole),
        sources={source: _source(source, counts, bins) for source in SOURCES if any(s == source for s, _ in counts)},
        tokens=tokens,
        seconds=add_up(commit.seconds for commit in whole),
    )


def _committed(opened: OpenRun) -> tuple[dict[str, int], int, int]:
    """Return, for all samples, the counts by status, how many have a kept text, and the tokens."""
    kept = opened.samples.filter("texts_kept > 0").aggregate("count(*)").fetchall()[0][0]
    commits = opened.commits
    return add_up(commit.statuses for commit in commits), kept, sum(commit.tokens for commit in commits)


def _matching(rows: duckdb.DuckDBPyRelation) -> tuple[dict[str, int], int, int]:
    """Return the same figures for the samples of some rows."""
    samples = rows.aggregate("shard, position, status, bool_or(kept) AS kept, sum(tokens) AS tokens")
    found = samples.aggregate("status, count(*) AS n, count(*) FILTER (kept) AS kept, sum(tokens) AS tokens").fetchall()
    statuses = {status: count for status, count, _, _ in sorted(found)}
    return statuses, sum(kept for _, _, kept, _ in found), int(sum(tokens or 0 for *_, tokens in found))


def _source(source: str, counts: dict[tuple[str, str], int], bins: dict[tuple[str, str], Bins]) -> SourceStats:
    reasons = {reason: count for (name, reason), count in sorted(counts.items()) if name == source}
    kept = reasons.pop("", 0)
    scored = {score: bins[source, score] for score in SCORES if (source, score) in bins}
    return SourceStats(
        scored=kept + sum(reasons.values()),
        kept=kept,
        rejected=reasons,
        scores={score: quantiles(counted) for score, counted in scored.items()},
        bands={score: bands(score, counted) for score, counted in scored.items()},
    )
