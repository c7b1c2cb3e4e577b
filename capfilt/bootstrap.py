"""CapFilt, the algorithm: write captions for each image, score its web text and its captions, record all of it.

Nothing here knows on which machine it runs, or what ran before. Batches are cut at fixed positions of the shard,
a sample that cannot be used keeps its place in its batch, and the noise of a caption follows from the image.
So a unit's rows depend on its shard and the settings alone.

Shapes: B images of a batch, S side of a model's square input.
Source: BLIP, arXiv 2201.12086, section 3.3.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from torch import Tensor

from capfilt.batches import BatchReader, Prepared, Sides, read_batches, stack_pixels
from capfilt.captioners import Captioner, require_finite_logprob
from capfilt.config import BootstrapConfig, Policy
from capfilt.controls import add_controls
from capfilt.filters import Filter, Scores, require_finite_scores
from capfilt.ledger import candidates_table, read_unit, write_unit
from capfilt.ledger.quarantine import quarantine
from capfilt.policy import select
from capfilt.records import Candidate, Caption, SampleRecord, Unit, UnitResult
from capfilt.runs import Run
from capfilt.stopwatch import Stopwatch
from capfilt.texts import clean
from capfilt.turns import Turns
from capfilt.units import check_failures


@dataclass(frozen=True, slots=True)
class CapFilt:
    """The two models of a bootstrap, and the turns in which batches of several threads use them."""

    captioner: Captioner
    filter: Filter
    turns: Turns = field(default_factory=Turns)

    @property
    def sides(self) -> Sides:
        """The sizes that images are resized to."""
        return self.captioner.image_size, self.filter.image_size


Build = Callable[[BootstrapConfig], CapFilt]
"""Loads the models of a job, in the process that uses them."""


def capfilt_unit(
    unit: Unit, models: CapFilt, config: BootstrapConfig, run: Run, reader: BatchReader | None = None
) -> UnitResult:
    """Caption and score the samples of a unit and commit them. A unit that is committed already is left as it is.

    A trial writes nothing.

    Args:
        unit: which samples of which shard.
        models: both models.
        config: the job.
        run: where the ledger lies.
        reader: where batches come from; by default they are read and decoded here.

    Raises:
        ShardError: the shard cannot be read, is not the one that was planned, or too many samples failed.
        ModelError: a score or a caption's log-probability is not a number.
        RunError: a file of the committed unit is not what its record says.
        OSError: the ledger cannot be read or written.
    """
    found = read_unit(run, unit)
    if found:
        commit, table = found
        return _result(unit, commit.statuses, table, config.policy, commit.seconds)
    clock = Stopwatch()
    records: list[SampleRecord] = []
    tables = [candidates_table(unit.shard.id, [])]
    reader = reader or partial(read_batches, config, run)
    with closing(reader(unit, models.sides)) as batches:
        for batch in clock.each("read", batches):
            tables.append(candidates_table(unit.shard.id, capfilt_batch(batch, models, config, clock)))
            records += [prepared.record for prepared in batch]
    statuses = Counter(record.status for record in records)
    table = pa.concat_tables(tables).combine_chunks()
    if not unit.trial:
        check_failures(unit.shard, statuses, config, ((r.key, r.error) for r in records if r.status != "ok"))
        with clock("write"):
            quarantine(run, unit, records)
            write_unit(run, unit, records, table, clock.seconds)
    return _result(unit, statuses, table, config.policy, clock.seconds)


def capfilt_batch(
    batch: Sequence[Prepared], models: CapFilt, config: BootstrapConfig, clock: Stopwatch | None = None
) -> list[Candidate]:
    """Return all candidates of a batch with their scores: for each usable sample its web text, then its captions.

    The control texts of a sample that was drawn for them come last.

    Raises:
        ModelError: a score or a caption's log-probability is not a number.
    """
    clock = clock or Stopwatch()
    if all(prepared.record.status != "ok" for prepared in batch):
        return []
    noise = [noise_seed(config, prepared.record.image_sha256) for prepared in batch]
    pixels = stack_pixels([p.for_captioner for p in batch], config.device)  # (B, 3, S, S)
    captions = models.captioner.caption(pixels, noise, models.turns("caption", clock))  # B lists
    groups = [
        _unscored(prepared, written, seed, models.captioner.name, config)
        for prepared, written, seed in zip(batch, captions, noise, strict=True)
    ]
    groups = add_controls(groups, [p.record for p in batch], [p.text for p in batch], config)
    if models.filter.image_size != models.captioner.image_size:
        pixels = stack_pixels([p.for_filter for p in batch], config.device)  # (B, 3, S, S)
    return _score(groups, pixels, models, clock)


def _score(groups: Sequence[Sequence[Candidate]], pixels: Tensor, models: CapFilt, clock: Stopwatch) -> list[Candidate]:
    """Return the scored candidates of B images, given a group for each image; pixels is (B, 3, S, S)."""
    cleaned = [[clean(candidate.text) for candidate in group] for group in groups]
    texts = [list(dict.fromkeys(group)) for group in cleaned]  # texts that are equal when cleaned are scored once
    scores = models.filter.score(pixels, texts, models.turns("score", clock))  # B lists
    by_text = [dict(zip(group, found, strict=True)) for group, found in zip(texts, scores, strict=True)]
    return [
        _scored(candidate, scores_of[text], models.filter.name)
        for group, group_texts, scores_of in zip(groups, cleaned, by_text, strict=True)
        for candidate, text in zip(group, group_texts, strict=True)
    ]


def noise_seed(config: BootstrapConfig, image_sha256: str) -> int:
    """Return the 63-bit seed of an image's captions: the same on any machine, at any time and in any batch."""
    text = f"{config.seed} {config.round} {image_sha256}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _unscored(
    prepared: Prepared, captions: Sequence[Caption], seed: int, captioner: str, config: BootstrapConfig
) -> list[Candidate]:
    """Return the candidates of a sample, not yet scored; none for a sample that cannot be used."""
    record = prepared.record
    if record.status != "ok":
        return []
    for caption in captions:
        require_finite_logprob(caption, f"{record.key} at position {record.position}", captioner)
    web = [Candidate(record.position, record.key, config.source, 0, prepared.text)] if clean(prepared.text) else []
    return web + [
        Candidate(
            position=record.position,
            key=record.key,
            source="synthetic",
            caption_index=index,
            text=caption.text,
            captioner=captioner,
            round=config.round,
            seed=seed,
            tokens=caption.tokens,
            logprob=caption.logprob,
        )
        for index, caption in enumerate(captions)
    ]


def _scored(candidate: Candidate, scores: Scores, judge: str) -> Candidate:
    require_finite_scores(scores, f"{candidate.key} at position {candidate.position}", judge, candidate.text)
    return candidate.scored(*scores)


def _result(
    unit: Unit, statuses: Mapping[str, int], candidates: pa.Table, policy: Policy, seconds: dict[str, float]
) -> UnitResult:
    selection = select(candidates, policy)
    kept = selection.filter(selection["kept"])
    return UnitResult(
        unit=unit,
        statuses=dict(statuses),
        candidates=dict(Counter(selection["source"].to_pylist())),
        kept=dict(Counter(kept["source"].to_pylist())),
        tokens=pc.sum(candidates["tokens"]).as_py() or 0,
        seconds=seconds,
    )
