"""What another policy gains and loses, compared with the one before, from the ledger alone.

Shards are read one by one, so that memory does not grow with the run; each is read once and judged twice.
"""

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from capfilt.config import Policy
from capfilt.ledger import complete_shards, read_candidates
from capfilt.policy import SOURCES, cleaned, select
from capfilt.records import Shard
from capfilt.runs import Run


@dataclass(frozen=True, slots=True)
class SourceDifference:
    """The candidates of one source."""

    scored: int
    kept_before: int
    kept_after: int
    gained: int  # kept after, but not before
    lost: int


@dataclass(frozen=True, slots=True)
class Move:
    """Texts that the two policies decide differently, or for different reasons."""

    source: str
    before: str | None  # the reason why they were not kept; None: they were kept
    after: str | None
    texts: int


@dataclass(frozen=True, slots=True)
class Example:
    """A text that is gained or lost."""

    shard: str
    position: int
    key: str
    source: str
    caption_index: int
    text: str
    itm: float | None
    itc: float | None
    before: str | None  # reasons, as in a move
    after: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Two policies on one run."""

    run: str
    before: str  # name of the policy
    after: str
    settings: dict[str, tuple[object, object]]  # key of the policy -> its values before and after, where they differ
    shards: int  # complete
    planned: int
    samples: int  # of the complete shards
    samples_before: int  # with a kept text
    samples_after: int
    samples_gained: int
    samples_lost: int
    sources: dict[str, SourceDifference]
    moves: list[Move]  # those with the most texts first
    gained: list[Example]
    lost: list[Example]

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        return asdict(self)


@dataclass(slots=True)
class _Found:
    """The parts of a Difference, of one shard or summed over several."""

    outcomes: Counter[tuple[str, str | None, str | None]] = field(default_factory=Counter)  # source, before, after
    samples: Counter[str] = field(default_factory=Counter)
    gained: list[tuple[float, Example]] = field(default_factory=list)  # with random numbers, the lowest first
    lost: list[tuple[float, Example]] = field(default_factory=list)

    def add(self, other: "_Found", examples: int) -> None:
        self.outcomes.update(other.outcomes)
        self.samples.update(other.samples)
        self.gained = heapq.nsmallest(examples, self.gained + other.gained, key=lambda drawn: drawn[0])
        self.lost = heapq.nsmallest(examples, self.lost + other.lost, key=lambda drawn: drawn[0])


def difference(run: Run, before: Policy, after: Policy, examples: int = 5, seed: int = 0) -> Difference:
    """Return what a policy gains and loses, compared with another, over the complete shards of a run.

    Args:
        run: the run.
        before: the policy to compare with.
        after: the new one.
        examples: number of gained texts, and of lost ones, drawn uniformly.
        seed: of the draw.

    Raises:
        RunError: the run has no plan, or a file of its ledger is not what was committed.
    """
    plan, complete = run.plan(), complete_shards(run)
    shards = [shard for shard in plan if shard.id in complete]
    found = _Found()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part in pool.map(partial(_shard, run, before, after, examples, seed), shards):
            found.add(part, examples)
    old, new = before.model_dump(), after.model_dump()
    return Difference(
        run=run.root,
        before=before.name,
        after=after.name,
        settings={key: (old[key], new[key]) for key in old if old[key] != new[key] and key != "name"},
        shards=len(shards),
        planned=len(plan),
        samples=sum(shard.samples for shard in shards),
        **{f"samples_{name}": found.samples[name] for name in ("before", "after", "gained", "lost")},
        sources=dict(_sources(found.outcomes)),
        moves=_moves(found.outcomes),
        gained=[example for _, example in found.gained],
        lost=[example for _, example in found.lost],
    )


def _shard(run: Run, before: Policy, after: Policy, examples: int, seed: int, shard: Shard) -> _Found:
    candidates = read_candidates(run, shard)
    texts = cleaned(candidates["text"])
    old, new = (select(candidates, policy, texts) for policy in (before, after))
    was, is_ = (selection["kept"].to_numpy() for selection in (old, new))
    columns = {"source": old["source"], "before": old["reason"], "after": new["reason"]}
    counted = pa.table(columns).group_by(list(columns)).aggregate([([], "count_all")]).to_pylist()
    outcomes = {(row["source"], row["before"], row["after"]): row["count_all"] for row in counted}
    # a row's random number depends on the shard and its place alone, so another policy shows the same rows again
    start = hashlib.sha256(f"{seed}/{shard.id}".encode()).digest()
    chances = np.random.default_rng(list(start)).random(len(was))
    rows = old.rename_columns({"reason": "before"}).append_column("after", new["reason"])
    return _Found(
        outcomes=Counter(outcomes),
        samples=_samples(old["position"].to_numpy(), was, is_),
        gained=_draw(rows, chances, is_ & ~was, examples),
        lost=_draw(rows, chances, was & ~is_, examples),
    )


def _samples(positions: NDArray[np.int64], was: NDArray[np.bool_], is_: NDArray[np.bool_]) -> Counter[str]:
    """Return how many samples have a kept text before and after, and how many gain or lose all."""
    before, after = np.unique(positions[was]), np.unique(positions[is_])
    both = len(np.intersect1d(before, after, assume_unique=True))
    counts = {"before": len(before), "after": len(after), "gained": len(after) - both, "lost": len(before) - both}
    return Counter(counts)


def _draw(
    rows: pa.Table, chances: NDArray[np.float64], among: NDArray[np.bool_], count: int
) -> list[tuple[float, Example]]:
    places = np.flatnonzero(among)
    chosen = places[np.argsort(chances[places])[:count]]
    table = rows.select(list(Example.__dataclass_fields__)).take(pa.array(chosen))
    return [(float(chances[place]), Example(**row)) for place, row in zip(chosen, table.to_pylist(), strict=True)]


def _sources(outcomes: Counter[tuple[str, str | None, str | None]]) -> Iterator[tuple[str, SourceDifference]]:
    for source in SOURCES:
        counts = [(before is None, after is None, n) for (name, before, after), n in outcomes.items() if name == source]
        if counts:
            yield (
                source,
                SourceDifference(
                    scored=sum(n for *_, n in counts),
                    kept_before=sum(n for was, _, n in counts if was),
                    kept_after=sum(n for _, is_, n in counts if is_),
                    gained=sum(n for was, is_, n in counts if is_ and not was),
                    lost=sum(n for was, is_, n in counts if was and not is_),
                ),
            )


def _moves(outcomes: Counter[tuple[str, str | None, str | None]]) -> list[Move]:
    moves = [Move(*outcome, n) for outcome, n in outcomes.items() if outcome[1] != outcome[2]]
    return sorted(moves, key=lambda move: (-move.texts, move.source, move.before or "", move.after or ""))
