"""From a bootstrap config to its two models, on their device."""

import logging

import torch

from capfilt.bootstrap import CapFilt
from capfilt.captioners.med import MEDCaptioner
from capfilt.config import BootstrapConfig, Device
from capfilt.filters.med import MEDFilter
from capfilt.hardware import require_device
from capfilt.med.checkpoints import checkpoint_hash, load, require
from capfilt.med.fetch import fetch
from capfilt.med.image_encoder import image_cache
from capfilt.med.model import MED
from capfilt.med.weights import count_parameters, on_meta

logger = logging.getLogger(__name__)


def checkpoint_hashes(config: BootstrapConfig) -> dict[str, str]:
    """Return the hashes of the two checkpoints, which name them in the run and in the ledger."""
    return {"captioner": checkpoint_hash(fetch(config.captioner)), "filter": checkpoint_hash(fetch(config.filter))}


def build_models(config: BootstrapConfig) -> CapFilt:
    """Load captioner and filter onto the config's device.

    Raises:
        CheckpointError: a checkpoint is missing or cannot play its part.
        ConfigError: the device is not there.
    """
    require_device(config.device.kind, "set device.kind: cpu")
    return _put_together(config, checkpoint_hashes(config))


def outline_models(config: BootstrapConfig) -> CapFilt:
    """Return the models as build_models does, but without values: only the headers of the files are read.

    Raises:
        CheckpointError, ConfigError: as build_models, but for the device.
    """
    with torch.device("meta"):
        plain = config.model_copy(update={"device": Device(dtype="float32", linear="plain")})
        return _put_together(plain, {"captioner": "", "filter": ""})  # a hash would need all of a file


def describe_models(config: BootstrapConfig) -> list[str]:
    """Return a line about each checkpoint of a config. Errors as in outline_models."""
    models = outline_models(config)
    parts = (("captioner", config.captioner, models.captioner), ("filter", config.filter, models.filter))
    return [
        f"{role} {place}: {count_parameters(model.model):,} parameters, {model.image_size} pixels"
        for role, place, model in parts
        if isinstance(model, MEDCaptioner | MEDFilter)
    ]


def _put_together(config: BootstrapConfig, hashes: dict[str, str]) -> CapFilt:
    captioner = require(load(fetch(config.captioner)), "captioner", config.captioner)
    judge = require(load(fetch(config.filter)), "filter", config.filter)
    cache = None
    if _same_tower(captioner.model, judge.model):
        logger.info("captioner and filter have the same vision tower: images are encoded once for both")
        judge.model.vision, cache = captioner.model.vision, image_cache()
    return CapFilt(
        MEDCaptioner(hashes["captioner"], captioner, config.sampling, config.device, cache),
        MEDFilter(hashes["filter"], judge, config.scoring, config.device, cache),
    )


def _same_tower(one: MED, other: MED) -> bool:
    """Return whether two models encode an image alike, as after fine-tuning the one with the other as vision_from."""
    if on_meta() or not one.config.vision.alike(other.config.vision):  # without values nothing is known to be equal
        return False
    mine, its = one.vision.state_dict(), other.vision.state_dict()
    return all(mine[name].equal(its[name]) for name in mine)
