"""Gradient checkpointing: the last blocks discard their activations and recompute them in the backward pass.

The original does so in the last blocks of its vision tower (`ckpt_layer`). Only methods of an instance are replaced,
so parameters keep their names, and earlier copies of the model do not change.
"""

from collections.abc import Callable, Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from capfilt.config.training import TrainingDevice
from capfilt.med.nlvr2 import TwinStack
from capfilt.med.text import TextStack
from capfilt.med.vision import VisionTower


def recompute(model: nn.Module, settings: TrainingDevice) -> None:
    """Checkpoint the last blocks of every vision tower and text stack of a model, as many as the settings say."""
    for module in model.modules():
        if isinstance(module, VisionTower):
            _wrap(_last(module.vit.blocks, settings.recompute_vision), "forward")
        if isinstance(module, TextStack):
            _wrap(_last(module.blocks, settings.recompute_text), "encode", "decode")
        if isinstance(module, TwinStack):
            _wrap(_last(module.blocks, settings.recompute_text), "forward")


def _last(blocks: Iterable[nn.Module], count: int) -> list[nn.Module]:
    listed = list(blocks)
    return listed[max(0, len(listed) - count) :]


def _wrap(blocks: Iterable[nn.Module], *methods: str) -> None:
    for block in blocks:
        for name in methods:
            setattr(block, name, _again(getattr(block, name)))


def _again(method: Callable[..., object]) -> Callable[..., object]:
    # Without reentrant autograd, keyword arguments, tuples, inputs without a gradient and DDP work.
    return partial(checkpoint, method, use_reentrant=False)
