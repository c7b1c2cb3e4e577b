"""From a bootstrap config to its two models, on their device."""

from pathlib import Path

import torch

from capfilt.bootstrap import CapFilt
from capfilt.captioners.med import MEDCaptioner
from capfilt.config import BootstrapConfig, Device
from capfilt.errors import ConfigError
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import checkpoint_hash, load, require


def checkpoint_names(config: BootstrapConfig) -> dict[str, str]:
    """Return the hashes of the two checkpoints, which name them in the run and in the ledger."""
    return {"captioner": checkpoint_hash(Path(config.captioner)), "filter": checkpoint_hash(Path(config.filter))}


def build_models(config: BootstrapConfig) -> CapFilt:
    """Load captioner and filter onto the config's device.

    Raises:
        CheckpointError: a checkpoint is missing or cannot play its part.
        ConfigError: the device is not there.
    """
    names, device = checkpoint_names(config), resolve(config.device)
    captioner = require(load(Path(config.captioner)), "captioner", config.captioner)
    judge = require(load(Path(config.filter)), "filter", config.filter)
    return CapFilt(
        MEDCaptioner(names["captioner"], captioner, config.sampling, device),
        MEDFilter(names["filter"], judge, config.scoring, device),
    )


def resolve(device: Device) -> Device:
    """Return the device with auto replaced by what this machine has, and set torch's threads."""
    torch.set_num_threads(device.threads)
    found = torch.cuda.is_available()
    if device.kind == "cuda" and not found:
        raise ConfigError("device.kind: cuda, but torch sees no GPU here; set device.kind=cpu or gpus_per_worker: 1")
    kind = "cuda" if found and device.kind != "cpu" else "cpu"
    return device.model_copy(update={"kind": kind})
