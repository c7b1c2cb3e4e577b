"""Making a model ready for inference: device, precision, and the form of its linear layers."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from capfilt.config import Device
from capfilt.med.cpu import MATRIX_UNITS
from capfilt.med.gpu import keep_float32, kernels_run, send, warn_of_emulation
from capfilt.med.linear import replace_linear
from capfilt.med.packed import packing_suits_images
from capfilt.med.text import TextBlock, TextStack
from capfilt.med.vision import VisionTower, normalise
from capfilt.med.weights import on_meta

M = TypeVar("M", bound=nn.Module)


def ready(model: M, device: Device) -> M:
    """Move a model to a resolved device, in place, for inference alone; on the meta device it stays where it is."""
    if on_meta():
        return model.eval().requires_grad_(False)
    keep_float32()
    model = convert_layers(model.to(device.kind).eval().requires_grad_(False), device)
    if device.kind == "cuda":
        kernels_run()  # now, when a lack of memory is waited out and another process tries again
        if device.dtype == "bfloat16":
            warn_of_emulation()
    return model


def convert_layers(model: M, device: Device) -> M:
    """Convert a model, in place, to the types and layers that a resolved device computes with."""
    if device.dtype == "bfloat16":
        round_products(model)
    if device.linear == "packed" or device.dtype == "bfloat16":
        packed = device.linear == "packed"
        towers = not packed or packing_suits_images(getattr(torch, device.dtype))
        replace_linear(model, device.kind, packed, towers)
    if device.kind == "cpu" and device.dtype == "bfloat16" and not MATRIX_UNITS:
        for module in model.modules():
            if isinstance(module, VisionTower):
                module.unfuse_attention()
    return model


def round_products(model: nn.Module) -> None:
    """Convert the weights of a model's large products to bfloat16, in place.

    The residual stream, its norms, and the heads of ITM and ITC stay in float32: they are a small part of the work, and
    rounding errors there add up over the blocks.
    """
    for module in model.modules():
        if isinstance(module, VisionTower | TextBlock):
            for part in module.modules():
                if isinstance(part, nn.Linear | nn.Conv2d | nn.GroupNorm):
                    part.to(torch.bfloat16)
        if isinstance(module, TextStack):
            module.embeddings.words.to(torch.bfloat16)


def on_device(pixels: Tensor, device: Device) -> Tensor:
    """Copy RGB pixels, uint8 (B, 3, S, S), as bytes and normalise them there to a tower's input, float (B, 3, S, S)."""
    return normalise(send(pixels, torch.device(device.kind)), getattr(torch, device.dtype))
