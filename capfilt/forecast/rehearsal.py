"""A rehearsal: a throw-away run over some of a job's own samples, on the device at hand, to measure what they take.

Its samples are copied into a shard of its own, which goes through the code of a run: units are captioned, scored and
committed, then folded and exported. The first unit warms up and is not counted.
"""

import math
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch

from capfilt.batch_size import find_batch_size
from capfilt.batches import prepare
from capfilt.bootstrap import Build, CapFilt, capfilt_unit
from capfilt.config import BootstrapConfig, ExportConfig
from capfilt.errors import ConfigError
from capfilt.export import export_shard, finish_export
from capfilt.ledger import fold
from capfilt.planning import shards_at
from capfilt.records import Sample, Unit
from capfilt.runs import Run, start_run
from capfilt.shards import open_shard, write_tar
from capfilt.storage.scratch import Scratch
from capfilt.tally import Tally

WARM_UP = {"cpu": 1, "cuda": 2}  # batches; on a GPU steps are captured when they are met again (med/graphs.py)
PLACES = 16  # units that samples are drawn from; their neighbours in a shard cost one request with them


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What some samples took. Lists have an entry for each repeat; seconds are those of a sample."""

    samples: int  # of a repeat
    batch_size: int
    load: float  # seconds until the models are there
    read: list[float]  # from their shards, by one thread; an entry for each place
    decode: list[float]  # by one thread
    model: list[float]  # in captioner and filter
    whole: list[float]  # of a unit that runs alone, from its opening to its commit
    export: float
    ledger: list[float]  # bytes of a sample in the ledger
    ledger_of_shard: float  # bytes that a shard takes besides those of its samples
    clean: float  # bytes of clean shards for each byte of the input
    tally: Tally  # of all repeats
    exported: int  # samples with a kept text
    attempted: int  # all samples that were done, those that warmed up included


def rehearse(
    build: Build, config: BootstrapConfig, units: Sequence[Unit], images: int, repeats: int, keep: Path | None = None
) -> Rehearsal:
    """Caption and score some samples of a job in a folder of their own.

    Args:
        build: loads the models.
        config: the job, its device resolved. Nothing of its own run is read or written.
        units: the samples are drawn from them, by the job's seed.
        images: samples of a repeat; rounded up to whole batches.
        repeats: each on other samples, as far as there are enough.
        keep: the folder, which keeps the samples as a shard and their run; by default it is thrown away.

    Raises:
        CapfiltError: a model cannot be loaded, a shard cannot be read, or the folder to keep is not empty.
    """
    with _folder(keep) as folder, _threads(config.device.threads):
        started = time.perf_counter()
        models = build(config)
        load = time.perf_counter() - started
        if not config.batch_size:
            config = config.model_copy(update={"batch_size": find_batch_size(models)})
            del models  # on a GPU they capture the steps of none but the largest batches that they met
            models = build(config)
        batch = _batch(config, units)
        each = math.ceil(images / batch) * batch
        warm_up = WARM_UP[config.device.kind] * batch
        drawn = _draw(units, warm_up + repeats * each, config.seed)
        own = {
            "input": [f"{folder}/rehearsal.tar"],
            "run": str(run_of(folder)),
            "batch_size": batch,
            "max_failed_share": 1.0,
            "damage": "fail",
        }
        return replace(_perform(models, config.model_copy(update=own), drawn, warm_up, each), load=load)


def _batch(config: BootstrapConfig, units: Sequence[Unit]) -> int:
    """Return the batch size of the job; that of units of few samples is no larger than they are."""
    mean = sum(unit.hi - unit.lo for unit in units) / len(units)
    return max(1, min(config.batch_size, round(mean)))


class _Drawn(NamedTuple):
    samples: list[Sample]
    seconds: list[float]  # that reading took, of a sample, at each place


def _draw(units: Sequence[Unit], count: int, seed: int) -> _Drawn:
    """Return some samples in random order, repeated where there are too few."""
    rng = random.Random(seed)
    chosen = rng.sample(list(units), min(PLACES, len(units)))
    each = math.ceil(count / len(chosen))
    samples, seconds = [], []
    for unit in chosen:
        lo = rng.randrange(unit.lo, max(unit.lo, unit.hi - each) + 1)
        reader, started = open_shard(unit.shard.url), time.perf_counter()
        found = list(reader.read(lo, min(unit.hi, lo + each)))
        seconds.append((time.perf_counter() - started) / max(1, len(found)))
        samples += found
    rng.shuffle(samples)
    return _Drawn([samples[n % len(samples)] for n in range(count)], seconds)


def _perform(models: CapFilt, config: BootstrapConfig, drawn: _Drawn, warm_up: int, each: int) -> Rehearsal:
    """Take the drawn samples through a run of their own: `warm_up` first, then `each` for every repeat."""
    write_tar(config.input[0], _members(drawn.samples))
    run = start_run(config, {"captioner": models.captioner.name, "filter": models.filter.name})
    (shard,) = shards_at(config.input)
    run.write_plan([shard])
    first = Unit(shard, 0, warm_up)
    units = [Unit(shard, lo, lo + each) for lo in range(warm_up, shard.samples, each)]
    capfilt_unit(first, models, config, run)
    tally, model, whole = Tally(), [], []
    for unit in units:
        started = time.perf_counter()
        result = capfilt_unit(unit, models, config, run)
        whole.append((time.perf_counter() - started) / each)
        model.append(sum(result.seconds.get(stage, 0.0) for stage in ("caption", "score")) / each)
        tally.add(result)
    parts = [_size(run, f"{shard.id}/{unit.name}") for unit in units]
    part = fmean(parts)
    fold(run, shard, [first, *units])
    # a line through two points: the files of few samples, and those of all of them
    slope = max(0.0, (_size(run, shard.id) - part) / (shard.samples - each))
    started = time.perf_counter()
    settings = ExportConfig(run=config.run, policy=config.policy)
    exported = export_shard(run, shard, settings)
    export = (time.perf_counter() - started) / shard.samples
    finish_export(run, [shard], settings)
    clean = sum(path.stat().st_size for path in Path(run.clean(settings)).glob(f"{shard.id}*"))
    return Rehearsal(
        samples=each,
        batch_size=config.batch_size,
        load=0.0,
        read=drawn.seconds,
        decode=[_decode(models, config, drawn.samples[unit.lo : unit.hi]) for unit in units],
        model=model,
        whole=whole,
        export=export,
        ledger=[slope * size / part for size in parts],
        ledger_of_shard=max(0.0, part - slope * each),
        clean=clean / shard.size,
        tally=tally,
        exported=exported.samples,
        attempted=shard.samples,
    )


def _size(run: Run, stem: str) -> int:
    return sum(path.stat().st_size for path in Path(run.ledger).glob(f"{stem}.*"))


def _decode(models: CapFilt, config: BootstrapConfig, samples: Sequence[Sample]) -> float:
    """Return the seconds that one thread takes to make a sample ready for the models."""
    started = time.perf_counter()
    for sample in samples:
        prepare(models.sides, config, sample)
    return (time.perf_counter() - started) / len(samples)


def _members(samples: Sequence[Sample]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a tar of some samples, each with at least one, so that it keeps its position."""
    for number, sample in enumerate(samples):
        parts = {
            "jpg": sample.image,
            "json": sample.metadata.encode(),
            "txt": sample.text.encode("utf-8", "replace"),
        }
        held = {suffix: data for suffix, data in parts.items() if data} or {"txt": b""}
        yield from ((f"{number:08d}.{suffix}", data) for suffix, data in held.items())


def run_of(folder: str | Path) -> Path:
    """Return the run in the folder of a rehearsal."""
    return Path(folder, "run")


@contextmanager
def _folder(keep: Path | None) -> Iterator[str]:
    """Make the folder to keep, which must be new or empty, or a temporary one. One that fails keeps nothing."""
    if keep is None:
        with Scratch() as folder:
            yield folder
        return
    keep.mkdir(parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise ConfigError(f"{keep}: is not empty; name a new or empty folder to keep the rehearsal in")
    with ExitStack() as unless_done:
        unless_done.callback(shutil.rmtree, keep, ignore_errors=True)
        yield str(keep.absolute())
        unless_done.pop_all()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with as many threads as a worker does, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
