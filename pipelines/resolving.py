"""What a bootstrap leaves to the machine, and to the run that it goes on with."""

import logging
from functools import partial

from capfilt import storage
from capfilt.bootstrap import Build
from capfilt.config import BootstrapConfig
from capfilt.hardware import require_gpus
from capfilt.med.auto import resolve_auto
from capfilt.runs import begun_with
from capfilt.runs.stop import Stop
from workers.bootstrap_worker import try_batch_sizes
from workers.session import on_a_worker

logger = logging.getLogger(__name__)


def resolved(config: BootstrapConfig, build: Build, local: bool, stop: Stop) -> BootstrapConfig:
    """Decide what a config leaves to the machine: as the run began with, or else as suits the machine.

    Raises:
        ConfigError: the models are to be on GPUs, and no worker has one.
        StoppedError: it was asked to stop before a worker had found the batch size.
    """
    if not local:
        require_gpus(config.device.kind, config.cluster.gpus_per_worker)
    config = as_begun(config)
    if config.batch_size:
        return config
    work = partial(try_batch_sizes, build, placed(config))
    size = work() if local else on_a_worker(work, config.cluster, stop)
    logger.info("batch_size: %d, found by trial; the run keeps it", size)
    return config.model_copy(update={"batch_size": size})


def as_begun(config: BootstrapConfig) -> BootstrapConfig:
    """Return a config with the device and batch size that its run began with; a new run has no batch size yet."""
    begun = begun_with(config.run)
    device = resolve_auto(config.device, begun.device if begun else None)
    size = config.batch_size or (begun.batch_size if begun else 0)
    return config.model_copy(update={"device": device, "batch_size": size})


def placed(config: BootstrapConfig) -> BootstrapConfig:
    """Return a config whose checkpoints are found from any folder, since an actor may run in another."""
    paths = {"captioner": storage.absolute(config.captioner), "filter": storage.absolute(config.filter)}
    return config.model_copy(update=paths)
