"""Scan shards: read all of their indexes, and look at their samples or a share of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq

from capfilt.config import BootstrapConfig
from capfilt.errors import QueryError
from capfilt.planning import passed_over, shards_at, unusable
from capfilt.progress import Progress
from capfilt.query.engine import connect
from capfilt.query.languages import detector
from capfilt.records import PassedOver
from capfilt.scan.counts import Repeated, count
from capfilt.scan.look import Outcome, table
from capfilt.scan.work import cut_tasks, run_tasks
from capfilt.shards import find_shards
from capfilt.storage import absolute
from capfilt.storage.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Scan:
    """What some shards hold. The fields after `unread` count the samples that were looked at."""

    shards: int
    unusable: dict[str, str]  # URL of a shard -> what cannot be read of it
    damage: str  # what the job does with such shards
    left_out: list[str]  # URLs of those that it leaves out
    samples: int  # by the indexes of the shards
    looked_at: int
    passed_over: dict[str, PassedOver]  # suffix -> members of tars that belong to no sample, of all shards
    unread: list[str]  # why some samples could not be looked at
    statuses: dict[str, int]
    text_statuses: dict[str, int]
    examples: dict[str, str]  # status of a sample or, if that is ok, of its text -> one such sample: what was found
    bytes: int  # of the encoded images
    formats: dict[str, int]
    scripts: dict[str, int]  # of texts that are not empty
    languages: dict[str, int] | None  # None: not asked for, or no text has one
    sizes: dict[str, dict[str, float]]  # shorter side (pixels), longer over shorter side, kilobytes, words -> quantiles
    blank: int  # images of one colour
    copies: int  # samples whose file is that of an earlier one
    copied: int  # files of several samples
    placeholders: int  # samples whose file comes with PLACEHOLDER different texts or more
    alike: int | None  # files that look like another, without the first of a kind; None: the extra is not installed
    repeated_texts: int  # samples whose text is that of another sample, case aside
    files: list[Repeated]  # what repeats most
    texts: list[Repeated]
    urls: list[Repeated]
    domains: list[Repeated]
    usable: dict[str, int]  # statuses of the samples of the shards that a bootstrap takes as a whole
    failing_shards: dict[str, float]  # those over max_failed_share -> share of failed samples

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        return asdict(self)


def scan(job: BootstrapConfig, *, share: float = 1.0, workers: int = 1, languages: bool = False) -> Scan:
    """Look at shards as a bootstrap would, without a model.

    Args:
        job: the bootstrap; its input, limits on images, damage and max_failed_share count.
        share: of the samples; the indexes of all shards are read.
        workers: processes; with 1 this process does the work.
        languages: guess the language of each text too.

    Raises:
        ConfigError: an input matches nothing.
        QueryError: share is not in (0, 1], or no detector of languages is installed.
    """
    if not 0 < share <= 1:
        raise QueryError(f"sample is {share}; give a share in (0, 1]")
    if languages:
        detector()  # reports a missing package at once
    shards = shards_at([absolute(url) for url in find_shards(job.input)])
    with Scratch() as scratch:
        tasks = cut_tasks(shards, share, job.images, Path(scratch), languages)
        outcomes = []
        with Progress(sum(task.samples for task in tasks), 0) as progress:
            for outcome in run_tasks(tasks, workers):
                outcomes.append(outcome)
                progress.add(outcome.task.samples, "looked at")
        damage = {shard.url: shard.damage.removeprefix(f"{shard.url}: ") for shard in shards if shard.damage}
        left_out = [shard.url for shard in shards if unusable(shard, job)]
        with connect(_files(outcomes, Path(scratch)), Path(scratch, "spill")) as connection:
            return Scan(
                shards=len(shards),
                unusable=damage,
                damage=job.damage,
                left_out=left_out,
                samples=sum(shard.samples for shard in shards),
                passed_over=passed_over(shards),
                unread=[outcome.error for outcome in outcomes if outcome.error],
                **count(connection, left_out, job.max_failed_share),
            )


def _files(outcomes: Sequence[Outcome], scratch: Path) -> dict[str, list[str]]:
    """Return the files with the rows of all samples, and one without rows, so that there always is one."""
    empty = str(scratch / "empty.parquet")
    pq.write_table(table([]), empty)
    return {"samples": [empty, *(each.task.output for each in outcomes if Path(each.task.output).exists())]}
