"""The quality of captioner and filter on the demo world, where the truth of every text is known."""

from dataclasses import dataclass

import pyarrow as pa

from capfilt.config import Policy
from capfilt.ledger import read_candidates, read_samples
from capfilt.policy import select
from capfilt.records import Shard
from capfilt.runs import Run
from capfilt.world.facts import is_true
from capfilt.world.scenes import scene_from_metadata


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Counts of the candidates of one source, by truth and by what the policy does with them."""

    true_kept: int = 0
    true_dropped: int = 0
    wrong_kept: int = 0
    wrong_dropped: int = 0

    @property
    def texts(self) -> int:
        """All candidates."""
        return self.true_kept + self.true_dropped + self.wrong_kept + self.wrong_dropped

    @property
    def true_share(self) -> float:
        """The share of texts that are true, before the filter."""
        return _share(self.true_kept + self.true_dropped, self.texts)

    @property
    def recall(self) -> float:
        """The share of true texts that are kept."""
        return _share(self.true_kept, self.true_kept + self.true_dropped)

    @property
    def rejection(self) -> float:
        """The share of wrong texts that are dropped."""
        return _share(self.wrong_dropped, self.wrong_dropped + self.wrong_kept)

    @property
    def precision(self) -> float:
        """The share of kept texts that are true."""
        return _share(self.true_kept, self.true_kept + self.wrong_kept)

    def __add__(self, other: "Verdicts") -> "Verdicts":
        return Verdicts(
            self.true_kept + other.true_kept,
            self.true_dropped + other.true_dropped,
            self.wrong_kept + other.wrong_kept,
            self.wrong_dropped + other.wrong_dropped,
        )


def judge(run: Run, shards: list[Shard], policy: Policy) -> dict[str, Verdicts]:
    """Return the verdicts on the candidates of some shards, by source.

    Raises:
        CapfiltError: a sample is not of the demo world.
    """
    verdicts: dict[str, Verdicts] = {}
    for shard in shards:
        candidates, samples = select(read_candidates(run, shard), policy), read_samples(run, shard)
        for source, verdict in _judge(candidates, samples):
            verdicts[source] = verdicts.get(source, Verdicts()) + verdict
    return verdicts


def _judge(candidates: pa.Table, samples: pa.Table) -> list[tuple[str, Verdicts]]:
    metadata = dict(zip(samples["position"].to_pylist(), samples["metadata"].to_pylist(), strict=True))
    rows = candidates.select(["source", "position", "text", "kept"]).to_pylist()
    return [
        (row["source"], _verdict(is_true(row["text"], scene_from_metadata(metadata[row["position"]])), row["kept"]))
        for row in rows
    ]


def _verdict(true: bool, kept: bool) -> Verdicts:
    return Verdicts(true and kept, true and not kept, not true and kept, not true and not kept)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
