"""The forecast of a job: what is left of it, times what a sample takes."""

import math
from dataclasses import asdict, dataclass
from operator import length_hint

from capfilt.calibrate.curves import Rate
from capfilt.config import BootstrapConfig
from capfilt.forecast.estimates import Estimate, known, mean
from capfilt.forecast.pace import Pace
from capfilt.forecast.rehearsal import Rehearsal
from capfilt.forecast.survey import Survey
from capfilt.units import unit_size

ALLOWANCE = 0.10
"""Share of the time that the upper bound adds for stragglers, restarts and other surprises."""

START = Estimate(0.0, 10.0, 30.0)
"""Seconds until Ray and its workers' processes run; on a cluster that has to grow it takes longer."""

COMPRESSION = Estimate(0.85, 1.0, 1.05)
"""Bytes of a row in the ledger of a shard, as a share of those in the rehearsal: larger files compress better."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a job will take. Unknown figures are None. Money is in the currency of the price."""

    survey: Survey
    rehearsal: Rehearsal | None
    pace: Pace | None
    workers: int  # that have something to do
    devices: float  # that they hold
    device: str  # what a device is
    hours: Estimate | None
    device_hours: Estimate | None
    cost: Estimate | None
    ledger_bytes: Estimate | None
    clean_bytes: Estimate | None
    kept: dict[str, Rate]  # by source

    def to_json(self) -> dict[str, object]:
        """Return all figures as plain values for json.dumps."""
        found = self.survey
        names = ("hours", "device_hours", "cost", "ledger_bytes", "clean_bytes")
        estimates = {name: getattr(self, name) for name in names}
        return {
            "shards": {"all": found.files, "looked_at": len(found.shards), "left_out": _named(found)},
            "samples": found.samples._asdict(),
            "samples_left": found.samples_left._asdict(),
            "bytes": found.bytes._asdict(),
            "bytes_left": found.bytes_left._asdict(),
            "pace": None if self.pace is None else asdict(self.pace) | {"seconds": self.pace.seconds._asdict()},
            "rehearsal": None if self.rehearsal is None else _rehearsal(self.rehearsal),
            "workers": self.workers,
            "devices": self.devices,
            "device": self.device,
            **{name: None if value is None else value._asdict() for name, value in estimates.items()},
            "allowance": ALLOWANCE,
            "kept": {source: rate.to_json() for source, rate in self.kept.items()},
        }


def forecast(
    config: BootstrapConfig, found: Survey, rehearsal: Rehearsal | None, pace: Pace | None, price: float | None = None
) -> Forecast:
    """Return what is to be expected of a job.

    Args:
        config: the job.
        found: its shards, and what is left of them.
        rehearsal: of some of its samples, if one was held.
        pace: of a worker, if it is known.
        price: of an hour of a device.
    """
    cluster = config.cluster
    units = length_hint(found.rest) * found.files / max(1, len(found.shards))
    workers = max(1, min(cluster.workers, round(units))) if found.samples_left.likely else 0
    each = cluster.gpus_per_worker or cluster.cpus_per_worker + cluster.decode_cpus
    hours = None if pace is None else _hours(config, found, pace, workers, units)
    device_hours = None if hours is None else hours.times(cluster.workers * each)
    return Forecast(
        survey=found,
        rehearsal=rehearsal,
        pace=pace,
        workers=workers,
        devices=cluster.workers * each,
        device="GPU" if cluster.gpus_per_worker else "CPU core",
        hours=hours,
        device_hours=device_hours,
        cost=None if device_hours is None or price is None else device_hours.times(price),
        ledger_bytes=None if rehearsal is None else _ledger(found, rehearsal),
        clean_bytes=_clean(config, found, rehearsal) if config.export else known(0.0),
        kept={} if rehearsal is None else _kept(rehearsal),
    )


def _hours(config: BootstrapConfig, found: Survey, pace: Pace, workers: int, units: float) -> Estimate:
    """Return the hours from the start to the last clean shard.

    Units are not divided: of three units, one of two workers does two. The lower bound ignores that and has all workers
    busy to the end; the upper bound adds a last unit that runs alone, and the allowance.
    """
    if not found.samples_left.likely:
        return known(0.0)
    uneven = max(1.0, math.ceil(units / workers) * workers / units)
    work = found.samples_left.times(pace.seconds).times(Estimate(1.0, uneven, uneven)).times(1 / workers)
    last = min(unit_size(config), found.samples_left.high) * pace.seconds.high
    export = found.samples.times(pace.export / workers if config.export else 0.0)
    total = work.plus(START).plus(known(pace.load)).plus(export).plus(Estimate(0.0, 0.0, last))
    return total.times(Estimate(1.0, 1.0, 1 + ALLOWANCE)).times(1 / 3600)


def _ledger(found: Survey, rehearsal: Rehearsal) -> Estimate:
    rows = found.samples_left.times(mean(rehearsal.ledger)).times(COMPRESSION)
    return rows.plus(found.shards_left.times(rehearsal.ledger_of_shard))


def _clean(config: BootstrapConfig, found: Survey, rehearsal: Rehearsal | None) -> Estimate:
    """Return the bytes of clean shards; without a rehearsal only how large they can become is known."""
    if rehearsal is None:
        return Estimate(0.0, found.bytes_left.likely, found.most_clean(config.sampling.captions))
    rate = Rate(rehearsal.exported, rehearsal.attempted)
    if not rate.share:
        return found.bytes_left.times(Estimate(0.0, rehearsal.clean, rate.high))
    return found.bytes_left.times(rehearsal.clean).times(Estimate(rate.low / rate.share, 1.0, rate.high / rate.share))


def _kept(rehearsal: Rehearsal) -> dict[str, Rate]:
    tally = rehearsal.tally
    return {source: Rate(tally.kept[source], count) for source, count in sorted(tally.candidates.items())}


def _named(found: Survey) -> dict[str, str]:
    return {shard.url: shard.damage.removeprefix(f"{shard.url}: ") for shard in found.left_out}


def _rehearsal(rehearsal: Rehearsal) -> dict[str, object]:
    values = {name: getattr(rehearsal, name) for name in Rehearsal.__dataclass_fields__ if name != "tally"}
    return values | {"statuses": dict(rehearsal.tally.statuses)}
