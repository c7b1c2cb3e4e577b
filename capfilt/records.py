"""The values that flow through capfilt: shards and samples in, candidates and their scores out.

Every sample of a unit becomes one SampleRecord, scored or not, and every text of a scored
sample one Candidate, kept or not: nothing can leave the pipeline without a row. There are
millions of these two, so they are tuples, built in a third of the time of frozen dataclasses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Source = Literal["web", "synthetic", "human", "control"]
"""Where a candidate comes from: the shard's own text, a captioner, a person's annotation, or another sample."""

CONTROL: Final = "control"
"""The source of a text that belongs to another sample and is scored to see how the filter rates a mismatch."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Members of tars that belong to no sample, all of one suffix."""

    members: int
    example: str  # name of the first


@dataclass(frozen=True, slots=True)
class Shard:
    """One input file of samples, as it was when the run was planned."""

    id: str  # unique within the run; names the outputs: "00042"
    url: str
    size: int  # bytes
    digest: str  # of the index (the headers of all members), by which a changed input is noticed
    samples: int
    damage: str = ""  # which part of the file cannot be read; empty when it is whole
    # by suffix; known only after a walk through the headers, and not kept in the plan
    passed_over: Mapping[str, PassedOver] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and the text that came with it, at a position of its shard."""

    position: int  # 0 is the first sample of the shard
    key: str
    image: bytes  # the encoded file, never re-encoded; empty when there is none
    text: str  # exactly as it came; empty when there is none
    url: str = ""
    metadata: str = ""  # the sample's own JSON, unparsed; empty when there is none
    status: str = "ok"  # or, if reading alone shows that its image cannot be used, the reason code
    text_status: str = "ok"  # ok, missing, empty, not_utf8 or cut
    error: str = ""  # what was found, for people


@dataclass(frozen=True, slots=True)
class Held:
    """A sample that only keeps its place in its batch, because it kills, hangs or breaks its worker."""

    position: int
    error: str  # what it does, always in the same words, since they go into its row
    detail: str = ""  # what was observed, for people


@dataclass(frozen=True, slots=True)
class Unit:
    """The piece of work that is scheduled, retried, committed and resumed: samples lo to hi of a shard."""

    shard: Shard
    lo: int
    hi: int  # exclusive
    held: tuple[Held, ...] = ()  # by position; they are quarantined when the unit is committed
    trial: bool = False  # run only to see whether it can be done: nothing is committed

    @property
    def name(self) -> str:
        """The unit's place in the ledger: fixed width, so that names sort by position."""
        return f"{self.lo:08d}-{self.hi:08d}"


@dataclass(frozen=True, slots=True)
class Caption:
    """One text written by a captioner."""

    text: str
    tokens: int  # generated ones, including the end token but not the prompt
    logprob: float  # sum over the generated tokens under the model, in nats


class SampleRecord(NamedTuple):
    """One row of the samples table: a sample that was attempted, scored or not."""

    position: int
    key: str
    image_sha256: str
    width: int | None
    height: int | None
    format: str  # "JPEG", "PNG", ...; empty when the file was not recognised
    url: str
    metadata: str
    status: str  # "ok", or the reason code why it was not scored
    text_status: str
    error: str


class Candidate(NamedTuple):
    """One row of the candidates table: a text that may describe a sample's image, and its scores."""

    position: int
    key: str
    source: Source
    caption_index: int  # 0 for the web text, 0 to n - 1 for the captions of an image
    text: str  # exactly as it came
    captioner: str | None = None  # hash of the checkpoint that wrote it
    round: int = 0
    seed: int | None = None
    tokens: int | None = None
    logprob: float | None = None
    itm: float | None = None  # P(match) of the ITM head, in [0, 1]
    itc: float | None = None  # cosine of the contrastive features, in [-1, 1]

    def scored(self, itm: float, itc: float | None) -> "Candidate":
        """Return the candidate with its scores."""
        return Candidate(*self[:-2], itm, itc)  # takes a third of the time of _replace


@dataclass(frozen=True, slots=True)
class UnitResult:
    """The outcome of a unit: counts that add up, and where the time went."""

    unit: Unit
    statuses: dict[str, int]  # samples by status; the sum is hi - lo
    candidates: dict[str, int]  # texts by source
    kept: dict[str, int]  # texts by source that the run's own policy keeps
    tokens: int  # generated
    seconds: dict[str, float] = field(default_factory=dict)  # by stage
    completes: bool = False  # its shard is complete, too
