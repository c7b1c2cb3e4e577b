"""Models that start from a pre-trained MED: VQA and NLVR2.

They take over MED's weights; the few layers that it lacks are drawn at random and logged.
"""

import logging
import re
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from capfilt.config.sizes import NLVR2Sizes, VisionConfig, VQASizes
from capfilt.errors import CheckpointError
from capfilt.med.model import BERT_STD, BERT_WIDTH, MED
from capfilt.med.nlvr2 import NLVR2
from capfilt.med.vqa import VQA

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)


def vqa_from(model: MED, drop_path: float, seed: int, where: str = "the checkpoint") -> VQA:
    """Return a VQA model whose encoder and decoder start as those of a pre-trained MED.

    An answer attends to question states where a caption attends to an image. Where these differ in width,
    the weights of the keys and values are drawn from the seed, as in the original.

    Args:
        model: the pre-trained one.
        drop_path: stochastic depth of the vision tower.
        seed: of what is drawn.
        where: the model comes from, for errors.

    Raises:
        CheckpointError: the model lacks its encoder or its decoder.
    """
    if not (model.config.encoder and model.config.decoder):
        raise CheckpointError(f"{where}: a VQA model starts from encoder and decoder; give a pre-training checkpoint")
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("vision."):
            weights[name] = tensor
        elif name.startswith("text."):
            weights[name.replace("text.", "questions.", 1)] = tensor
            weights[name.replace("text.", "answers.", 1)] = tensor
    sizes = VQASizes(vision=_with(model.config.vision, drop_path), text=model.config.text)
    return _start(VQA(sizes), weights, r"answers\.blocks\.\d+\.cross_attn\.(key|value)\.weight", seed)


def nlvr2_from(model: MED, merge_from: int, drop_path: float, seed: int, where: str = "the checkpoint") -> NLVR2:
    """Return an NLVR2 model whose two cross-attentions both start as that of a pre-trained MED.

    The layers that merge the two and the head are drawn from the seed.

    Args:
        model: the pre-trained one.
        merge_from: text blocks from this one on merge the two by a linear layer, those before it by their mean.
        drop_path: stochastic depth of the vision tower.
        seed: of what is drawn.
        where: the model comes from, for errors.

    Raises:
        CheckpointError: the model has no encoder.
    """
    if not model.config.encoder:
        raise CheckpointError(
            f"{where}: an NLVR2 model starts from an encoder; give a pre-training or retrieval checkpoint"
        )
    weights = {}
    for name, tensor in model.state_dict().items():
        before, cross, after = name.partition(".cross_attn.")
        if cross and not after.startswith("norm."):
            weights[f"{before}{cross}sides.0.{after}"] = tensor
            weights[f"{before}{cross}sides.1.{after}"] = tensor
        else:
            weights[name] = tensor
    sizes = NLVR2Sizes(vision=_with(model.config.vision, drop_path), text=model.config.text, merge_from=merge_from)
    return _start(NLVR2(sizes), weights, r"head\..+|text\.blocks\.\d+\.cross_attn\.merge\..+", seed)


def _with(vision: VisionConfig, drop_path: float) -> VisionConfig:
    return vision.model_copy(update={"drop_path": drop_path})


def _start(model: M, weights: Mapping[str, Tensor], drawn: str, seed: int) -> M:
    """Fill a model with the weights that fit; those that do not must have a name that matches drawn."""
    generator = torch.Generator().manual_seed(seed)
    state, new = model.state_dict(), []
    for name, tensor in state.items():
        given = weights.get(name)
        if given is not None and given.shape == tensor.shape:
            state[name] = given
        elif not re.fullmatch(drawn, name):
            raise CheckpointError(f"{name} has no counterpart of shape {tuple(tensor.shape)} in the checkpoint")
        elif tensor.ndim == 1:
            state[name] = torch.zeros_like(tensor)
        else:
            deviation = BERT_STD * (BERT_WIDTH / tensor.shape[1]) ** 0.5  # as in MED.initialise
            state[name] = torch.empty_like(tensor).normal_(0.0, deviation, generator=generator)
        if state[name] is not given:
            new.append(name)
    model.load_state_dict(state)
    if new:
        logger.warning("%d tensors are not in the checkpoint and start at random: %s ...", len(new), ", ".join(new[:3]))
    return model
