"""Builders of small runs and ledgers, written by hand."""

from itertools import pairwise
from pathlib import Path
from typing import Any

from capfilt.config import BootstrapConfig
from capfilt.ledger import fold, write_unit
from capfilt.records import Candidate, SampleRecord, Shard, Unit
from capfilt.runs import Run, open_run

CHECKPOINTS = {"captioner": "c0ffee", "filter": "f117e4"}
SHARD = Shard("00000", "in/00000.tar", 1000, "d16e57", 4)


def config(folder: Path | str, **changes: Any) -> BootstrapConfig:
    settings = {"input": ["in"], "run": f"{folder}/run", "captioner": "c", "filter": "f"}
    return BootstrapConfig.model_validate(settings | changes)


def new_run(folder: Path | str, shards: list[Shard] | None = None) -> Run:
    """Return a planned run."""
    run = open_run(config(folder), CHECKPOINTS)
    run.write_plan([SHARD] if shards is None else shards)
    return run


def record(position: int, **changes: Any) -> SampleRecord:
    values = {
        "position": position,
        "key": f"key{position}",
        "image_sha256": f"{position:064x}",
        "width": 8,
        "height": 6,
        "format": "JPEG",
        "url": f"http://example.org/{position}",
        "metadata": "",
        "status": "ok",
        "text_status": "ok",
        "error": "",
    }
    return SampleRecord(**(values | changes))


def web(position: int, itm: float | None = 0.75, text: str = "a web text", **changes: Any) -> Candidate:
    return Candidate(position, f"key{position}", "web", 0, text, itm=itm, **({"itc": 0.25} | changes))


def synthetic(
    position: int, itm: float | None = 0.5, text: str = "a caption", index: int = 0, **changes: Any
) -> Candidate:
    values = {"captioner": "c0ffee", "seed": 7, "tokens": 5, "logprob": -2.5, "itc": 0.125}
    return Candidate(position, f"key{position}", "synthetic", index, text, itm=itm, **(values | changes))


def commit(
    run: Run, shard: Shard, cuts: list[int], records: list[SampleRecord], candidates: list[Candidate]
) -> list[Unit]:
    """Commit a shard's rows in units between the cuts, without folding them."""
    units = [Unit(shard, lo, hi) for lo, hi in pairwise(cuts)]
    for unit in units:
        inside = range(unit.lo, unit.hi)
        write_unit(
            run,
            unit,
            [record for record in records if record.position in inside],
            [candidate for candidate in candidates if candidate.position in inside],
            {"caption": 0.5, "score": 0.25},
        )
    return units


def complete(run: Run, shard: Shard, records: list[SampleRecord], candidates: list[Candidate]) -> None:
    """Commit a shard as one unit and fold it."""
    fold(run, shard, commit(run, shard, [0, shard.samples], records, candidates))
