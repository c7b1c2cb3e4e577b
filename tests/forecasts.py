"""Surveys and rehearsals made up by hand, whose forecasts can be worked out on paper."""

from typing import Any

from capfilt.config import BootstrapConfig
from capfilt.forecast.rehearsal import Rehearsal
from capfilt.forecast.survey import Survey
from capfilt.records import Shard, Unit, UnitResult
from capfilt.tally import Tally


def config(**changes: Any) -> BootstrapConfig:
    values = {"input": ["in"], "run": "run", "captioner": "c", "filter": "f", "unit_size": 1000}
    return BootstrapConfig.model_validate(values | changes)


class Left(list[Unit]):
    """What is left of a run that is nowhere on a disk: its units, one for each shard."""

    def __init__(self, shards: list[Shard], done: int) -> None:
        super().__init__(Unit(shard, 0, shard.samples) for shard in shards)
        self.done = done  # samples

    def uncommitted(self, shard: Shard) -> int:
        return sum(unit.hi for unit in self if unit.shard == shard)


def survey(shards: int = 4, files: int | None = None, samples: int = 1000, done: int = 0) -> Survey:
    """Return shards of a unit and of 10 bytes a sample each, the first `done` of which are done."""
    known = [Shard(f"{n:05d}", f"in/{n:05d}.tar", 10 * samples, "d", samples) for n in range(shards)]
    rest = Left(known[done:], done * samples)
    return Survey(files or shards, known, [], rest, listed=0.0)  # type: ignore[arg-type]


def rehearsal(**changes: Any) -> Rehearsal:
    """Return a rehearsal of 2 times 50 samples without spread."""
    tally = Tally()
    tally.add(UnitResult(next(iter(survey().rest)), {"ok": 100}, {"web": 80, "synthetic": 100}, {"web": 20}, 0))
    values: dict[str, Any] = {
        "samples": 50,
        "batch_size": 10,
        "load": 5.0,
        "read": [0.001, 0.001],
        "decode": [0.008, 0.008],
        "model": [0.010, 0.010],
        "whole": [0.011, 0.011],
        "export": 0.0,
        "ledger": [100.0, 100.0],
        "ledger_of_shard": 50.0,
        "clean": 0.5,
        "tally": tally,
        "exported": 60,
        "attempted": 120,
    }
    return Rehearsal(**(values | changes))
