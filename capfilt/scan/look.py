"""Look at some samples of a shard, and write a row for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from capfilt.config import ImageLimits
from capfilt.errors import ShardError
from capfilt.examine import examine
from capfilt.policy import cleaned
from capfilt.query.facts import domains
from capfilt.query.languages import Detect, detector
from capfilt.query.scripts import scripts
from capfilt.records import Sample
from capfilt.scan.alike import hash_looks
from capfilt.shards import open_shard

MIN_SIDE = 128  # pixels; JPEGs are shrunk to about this, which is enough to recognise what they show
_BLANK = 4  # levels of 255: an image shows nothing if the values of each channel differ by less
_ROWS = 500  # in memory at once

FACTS = pa.schema(
    {
        "shard": pa.string(),  # URL
        "position": pa.int64(),
        "key": pa.string(),
        "status": pa.string(),
        "text_status": pa.string(),
        "error": pa.string(),  # what was found, for people
        "bytes": pa.int64(),  # of the encoded image
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
        "sha256": pa.string(),  # of the encoded image; empty when there is none
        "blank": pa.bool_(),
        "looks": pa.uint64(),  # perceptual hash; null if it says too little
        "text": pa.string(),
        "url": pa.string(),
    }
)


@dataclass(frozen=True, slots=True)
class Task:
    """Samples of a shard to look at."""

    url: str
    spans: tuple[tuple[int, int], ...]  # positions lo to hi - 1 of each
    limits: ImageLimits
    output: str  # a Parquet file
    languages: bool = False

    @property
    def samples(self) -> int:
        """The number of samples."""
        return sum(hi - lo for lo, hi in self.spans)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a task."""

    task: Task
    done: int  # samples in its output
    error: str = ""  # why the others are not


def look(task: Task) -> Outcome:
    """Write a row for each sample of a task. If the shard cannot be read any further, the outcome says why."""
    detect = detector() if task.languages else None
    done, error = 0, ""
    with pq.ParquetWriter(task.output, table([]).schema) as writer:
        rows = _rows(task)
        try:
            while batch := list(islice(rows, _ROWS)):
                writer.write_table(table(batch, detect))
                done += len(batch)
        except (ShardError, OSError) as found:
            error = str(found)
    return Outcome(task, done, error)


def _rows(task: Task) -> Iterator[dict[str, object]]:
    reader = open_shard(task.url)
    for lo, hi in task.spans:
        for sample in reader.read(lo, hi):
            yield _row(task, sample)


def _row(task: Task, sample: Sample) -> dict[str, object]:
    record, image = examine(sample, task.limits, MIN_SIDE)
    blank = image is not None and int(np.ptp(image.pixels, axis=(0, 1)).max()) < _BLANK
    return {
        "shard": task.url,
        "position": record.position,
        "key": record.key,
        "status": record.status,
        "text_status": record.text_status,
        "error": record.error,
        "bytes": len(sample.image),
        "width": record.width,
        "height": record.height,
        "format": record.format,
        "sha256": record.image_sha256,
        "blank": blank,
        "looks": None if image is None or blank else hash_looks(image),
        "text": sample.text,
        "url": record.url,
    }


def table(rows: Sequence[dict[str, object]], detect: Detect | None = None) -> pa.Table:
    """Return rows of FACTS with cleaned texts, and with the columns script, domain and, with a detector, language."""
    facts = pa.Table.from_pylist(list(rows), FACTS)
    texts = cleaned(facts["text"])
    facts = facts.set_column(FACTS.get_field_index("text"), "text", texts)
    facts = facts.append_column("script", scripts(texts).cast(pa.string()))
    facts = facts.append_column("domain", domains(facts["url"].combine_chunks()))
    languages = pa.nulls(len(facts), pa.string()) if detect is None else detect(texts)
    return facts.append_column("language", languages)
