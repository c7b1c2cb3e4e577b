"""Surveys and rehearsals made up by hand, whose forecasts can be worked out on paper."""

from typing import Any

from capfilt.config import BootstrapConfig
from capfilt.forecast.rehearsal import Rehearsal
from capfilt.records import Shard, Unit, UnitResult
from capfilt.rest import Rest
from capfilt.survey import Survey
from capfilt.tally import Tally


def config(**changes: Any) -> BootstrapConfig:
    values = {"input": ["in"], "run": "run", "captioner": "c", "filter": "f", "unit_size": 1000}
    return BootstrapConfig.model_validate(values | changes)


def survey(shards: int = 4, files: int | None = None, samples: int = 1000, done: int = 0) -> Survey:
    """Return shards of a unit and of 10 bytes a sample each, the first `done` of which are done."""
    known = [Shard(f"{n:05d}", f"in/{n:05d}.tar", 10 * samples, "d", samples) for n in range(shards)]
    left = {shard.id: 0 if n < done else samples for n, shard in enumerate(known)}
    units = [Unit(shard, 0, samples) for shard in known[done:]]
    return Survey(files or shards, known, [], Rest(units, [], left, shards * samples))


def rehearsal(**changes: Any) -> Rehearsal:
    """Return a rehearsal of 2 times 50 samples without spread."""
    tally = Tally()
    tally.add(UnitResult(survey().rest.units[0], {"ok": 100}, {"web": 80, "synthetic": 100}, {"web": 20}, 0))
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
