"""Decoding apart from the models: a process for each unit that a worker has in hand, on nodes with CPUs to spare.

In one process the threads of all units would wait for each other: they share Python's lock.

A worker starts its decoders and owns them, so that all end together: a decoder that hangs on an image ends with its
worker, whose deadline has passed. Batches of pixels pass through the object store, a few ahead of the models.
"""

import time
from collections.abc import Generator
from queue import SimpleQueue

import ray
import torch
from ray._private.state import actors
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayError, RayTaskError

from capfilt.batches import BatchReader, Prepared, Sides, read_batches
from capfilt.config import BootstrapConfig
from capfilt.errors import CapfiltError, ConfigError, WorkerError
from capfilt.logs import LogSettings, bound
from capfilt.records import Unit
from capfilt.runs import Run
from workers.faults import DecoderDied
from workers.slots import last_words, lost_node, units_in_hand

AHEAD = 3  # batches of a unit in the object store
PATIENCE = 600.0  # seconds within which a cluster must have room for a decoder
POLL = 1.0  # seconds between two checks of one that starts
MAX_STARTS = 3  # of a decoder whose process dies before it is up


class _Decoder:
    """The process of one decoder. It may still be working on abandoned units besides the current one."""

    def __init__(self, config: BootstrapConfig, run: Run, logs: LogSettings) -> None:
        logs.apply()
        torch.set_num_threads(1)  # of each decoding thread
        self._config, self._run = config, run

    def ready(self) -> None:
        """Return when the process is up."""

    def batches(self, unit: Unit, sides: Sides) -> Generator[list[Prepared], None, None]:
        with bound(shard=unit.shard.id, unit=unit.name):
            yield from read_batches(self._config, self._run, unit, sides)


def start_decoders(config: BootstrapConfig, run: Run) -> BatchReader:
    """Start the decoders of this process, which has to run on Ray, and return the source of their batches.

    Raises:
        ConfigError: no node has room for one.
        WorkerError: the process of one does not come up.
    """
    count = units_in_hand(config.cluster)
    cpus = config.cluster.decode_cpus / count
    actor_class = ray.remote(_Decoder).options(
        num_cpus=cpus,
        max_restarts=-1,
        max_concurrency=count,
        enable_task_events=False,
    )
    started = [actor_class.remote(config, run, LogSettings.here()) for _ in range(count)]
    try:
        for actor in started:
            _wait_for(actor, cpus)
    except CapfiltError:
        for actor in started:
            ray.kill(actor)  # else Ray restarts it for ever, and it keeps CPUs from others
        raise
    free: SimpleQueue[ActorHandle] = SimpleQueue()
    for actor in started:
        free.put(actor)

    def batches(unit: Unit, sides: Sides) -> Generator[list[Prepared], None, None]:
        actor = free.get()  # there are as many as there are units at once
        try:
            yield from _stream(actor, unit, sides)
        finally:
            free.put(actor)

    return batches


def _stream(actor: ActorHandle, unit: Unit, sides: Sides) -> Generator[list[Prepared], None, None]:
    """Yield the batches of a unit as a decoder makes them ready."""
    stream = actor.batches.options(num_returns="streaming", _generator_backpressure_num_objects=AHEAD)
    try:
        for batch in stream.remote(unit, sides):
            yield ray.get(batch)
    except RayTaskError as error:
        raise error.cause from None
    except ActorUnavailableError as error:
        raise ConnectionError(f"a decoder is out of reach: {last_words(error)}") from None
    except RayError as error:
        kind = ConnectionError if lost_node(error) else DecoderDied
        raise kind(f"a decoder died: {last_words(error)}") from None


def _wait_for(actor: ActorHandle, cpus: float) -> None:
    """Wait until a decoder is up. Ray silently restarts one that dies before that, again and again.

    Raises:
        ConfigError: no node has room for it.
        WorkerError: its process dies each time, or cannot be built.
    """
    ready, end = actor.ready.remote(), time.monotonic() + PATIENCE
    while not ray.wait([ready], timeout=POLL)[0]:
        if actors(actor._actor_id.hex()).get("NumRestarts", 0) >= MAX_STARTS:
            raise WorkerError(
                f"cluster.decode_cpus: the process of a decoder died {MAX_STARTS} times while it started: it crashed, "
                "or was killed, as the kernel does where memory is short; Ray's logs on its node have its last words"
            )
        if time.monotonic() > end:
            raise ConfigError(
                f"cluster.decode_cpus: no node has had {cpus:g} free CPUs for {PATIENCE:g} seconds; "
                "add nodes, or lower it"
            )
    try:
        ray.get(ready)
    except RayError as error:
        raise WorkerError(f"no decoder can be started: {last_words(error)}") from None
