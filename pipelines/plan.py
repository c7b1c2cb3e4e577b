"""The forecast of a bootstrap: its shards and what is left of them, and a rehearsal on this machine's device."""

from dataclasses import dataclass
from pathlib import Path

from capfilt.bootstrap import Build
from capfilt.config import BootstrapConfig
from capfilt.forecast import Forecast, Pace, Rehearsal, forecast, measured, pace_at, rehearse
from capfilt.forecast.survey import Survey
from capfilt.hardware import require_device
from pipelines.bootstrap_dry_run import Hashes, look
from pipelines.resolving import as_begun
from workers.slots import units_in_hand


@dataclass(frozen=True, slots=True)
class Options:
    """How a forecast is made."""

    images: int = 64  # of each repeat of the rehearsal
    repeats: int = 4
    timing: bool = True
    rate: float | None = None  # images a second of a worker, measured elsewhere; then there is no rehearsal
    price: float | None = None  # of an hour of a device
    whole: bool = False  # look at all shards
    keep: Path | None = None  # where the rehearsal stays


def run(config: BootstrapConfig, build: Build, hashes: Hashes, options: Options) -> Forecast:
    """Return what is to be expected of a bootstrap. Nothing is written but the rehearsal, in a folder of its own.

    Args:
        config: the job.
        build: loads the models.
        hashes: of the checkpoints; called only if a run exists that is tied to them.
        options: how it is made.

    Raises:
        CapfiltError: as the job itself would, before it begins.
    """
    config = as_begun(config)
    _, found = look(config, hashes, whole=options.whole)
    rehearsal, pace = _pace(config, build, found, options)
    return forecast(config, found, rehearsal, pace, options.price)


def _pace(
    config: BootstrapConfig, build: Build, found: Survey, options: Options
) -> tuple[Rehearsal | None, Pace | None]:
    if options.rate is not None:
        return None, pace_at(options.rate)
    units = [unit for unit in found.rest if unit.hi > unit.lo]
    if not options.timing or not units:
        return None, None
    require_device(
        config.device.kind,
        "plan on a GPU node, or give --rate with the images/s of a worker that were measured there, or --no-timing",
    )
    rehearsal = rehearse(build, config, units, options.images, options.repeats, options.keep)
    return rehearsal, measured(rehearsal, config, units_in_hand(config.cluster))
