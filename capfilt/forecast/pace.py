"""How fast a worker is, and what holds it back: the models, the decoding, the reading, or the cores of the machine."""

import math
import os
from dataclasses import dataclass

from capfilt.config import BootstrapConfig
from capfilt.forecast.estimates import Estimate, known, mean
from capfilt.forecast.rehearsal import Rehearsal


@dataclass(frozen=True, slots=True)
class Pace:
    """The seconds that a worker takes for a sample, all of its threads together."""

    seconds: Estimate
    bound: str  # what holds it back; empty where that is not known
    load: float = 0.0  # seconds until its models are there
    export: float = 0.0  # seconds that a process takes to export a sample
    threads_needed: int = 0  # decode_threads with which the models do not wait; 0 where that is not known
    cores_needed: float = 0.0  # that are busy then


def pace_at(rate: float) -> Pace:
    """Return the pace of a worker that was measured elsewhere, in images a second."""
    return Pace(known(1 / rate), "")


def measured(rehearsal: Rehearsal, config: BootstrapConfig, in_flight: int) -> Pace:
    """Return the pace of a worker, from what a rehearsal took of one thread of each kind.

    Units in flight overlap: each has its own threads that read and decode, and they share the models. So the slowest of
    these sets the pace. On a CPU all of them also share the worker's cores, unless decoding runs apart.

    Args:
        rehearsal: on the device of the workers.
        config: the job.
        in_flight: units of a worker at once.
    """
    model, decode, read = mean(rehearsal.model), mean(rehearsal.decode), mean(rehearsal.read)
    bounds = {
        "the models": model,
        "decoding": decode.times(1 / (config.decode_threads * in_flight)),
        "reading": read.times(1 / in_flight),
    }
    apart = bool(config.cluster.decode_cpus)
    if config.device.kind == "cpu":
        busy = model.times(float(config.device.threads))
        busy = busy if apart else busy.plus(decode).plus(read)
        bounds["the CPU cores"] = busy.times(1 / cores(config))
    bound = max(bounds, key=lambda name: bounds[name].likely)
    used = config.device.threads if config.device.kind == "cpu" else 1  # a core waits on a GPU
    return Pace(
        seconds=Estimate(*(max(each[side] for each in bounds.values()) for side in range(3))),
        bound=bound,
        load=rehearsal.load,
        export=rehearsal.export,
        threads_needed=math.ceil(decode.high / model.likely / in_flight) if model.likely else 0,
        cores_needed=used + (decode.likely / model.likely if model.likely and not apart else 0.0),
    )


def cores(config: BootstrapConfig) -> float:
    """Return how many cores a worker has: on this machine its share of all, elsewhere what Ray reserves for it."""
    cluster = config.cluster
    here = (os.cpu_count() or 1) / cluster.workers if cluster.address == "local" else 0.0
    return max(cluster.cpus_per_worker, here) or 1.0
