"""The worker of a bootstrap: both models on one device. It holds no logic of its own."""

import errno
import gc
import sys
from collections.abc import Callable
from dataclasses import replace

import torch

from capfilt.batch_size import find_batch_size
from capfilt.batches import BatchReader
from capfilt.bootstrap import Build, CapFilt, capfilt_unit
from capfilt.config import BootstrapConfig, Device
from capfilt.ledger.completion import complete_if_covered
from capfilt.logs import bound
from capfilt.med.fetch import drop_fetched
from capfilt.memory import out_of_memory_told
from capfilt.records import Unit, UnitResult
from capfilt.runs import Run
from capfilt.turns import Turns

SWITCH_INTERVAL = 1e-4  # Python's switch interval, seconds; its default is 5e-3
GC_THRESHOLD = 50_000  # new objects after which Python searches for unreachable cycles; its default is 700


class BootstrapWorker:
    """Builds the models once, then takes units through capfilt_unit."""

    def __init__(
        self,
        build: Build,
        config: BootstrapConfig,
        run: Run,
        start_reader: Callable[[BootstrapConfig, Run], BatchReader] | None = None,
    ) -> None:
        """Take what builds the models and, if images are decoded in other processes, what starts these.

        Raises:
            OSError: as in built.
            ConfigError: as in start_decoders.
            WorkerError: likewise.
        """
        # Before the models, since these take longer to load than it takes to find no room for decoders.
        self._reader = start_reader(config, run) if start_reader else None
        self._models = built(build, config)
        self._config, self._run = config, run

    def run(self, unit: Unit) -> UnitResult:
        """Bootstrap a unit, and complete its shard if it was the last.

        Several may run at once: one reads, decodes, detokenizes or writes while the others have the models.
        """
        with bound(shard=unit.shard.id, unit=unit.name):
            result = capfilt_unit(unit, self._models, self._config, self._run, self._reader)
            if unit.trial:
                return result
            return replace(result, completes=complete_if_covered(self._run, unit.shard, self._config))


def built(build: Build, config: BootstrapConfig) -> CapFilt:
    """Set the threads of this process for the device, and return the models with turns that suit it.

    Raises:
        OSError: the device lacks memory for them; that of a process that has just died is freed a little later.
    """
    set_threads(config.device)
    try:
        with out_of_memory_told():
            return replace(build(config), turns=make_turns(config.device))
    except torch.OutOfMemoryError as error:
        raise OSError(errno.ENOMEM, f"no memory for the models on the {config.device.kind} device: {error}") from error
    finally:
        drop_fetched()


def set_threads(device: Device) -> None:
    """Set how many threads compute and, with a GPU, how soon they release Python's lock.

    The thread that launches work on a GPU needs that lock again after each launch, hundreds of times a batch, while
    others decode, read and write. A garbage collection over all that is loaded holds it for a quarter of a second; the
    texts of a batch would start several, and leave no garbage.
    """
    torch.set_num_threads(device.threads)  # sums round differently for other numbers of threads
    if device.kind == "cuda":
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.set_threshold(GC_THRESHOLD)


def make_turns(device: Device) -> Turns:
    """Return the turns of units that share the models of a device.

    One model keeps all cores of a CPU busy. A GPU waits for its memory while captions are written, and for the host
    between their steps, so that the other model can use it.
    """
    return Turns(apart=device.kind == "cuda")


def try_batch_sizes(build: Build, config: BootstrapConfig) -> int:
    """Build the models and return the batch size that suits them on this device, shared as in a run."""
    return find_batch_size(built(build, config))
