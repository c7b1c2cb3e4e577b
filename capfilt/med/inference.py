"""How a model computes where it infers: device, precision, and the form of its linear layers."""

from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.config import Device
from capfilt.med.gpu import send, warn_of_emulation
from capfilt.med.linear import PackedLinear, replace_linear
from capfilt.med.text import TextBlock, TextStack
from capfilt.med.vision import VisionTower, normalise
from capfilt.med.weights import on_meta

CPUINFO = Path("/proc/cpuinfo")
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}  # relative to the largest value: some roundings of each type

M = TypeVar("M", bound=nn.Module)


def settle(device: Device, before: Device | None = None) -> Device:
    """Return a device without "auto": as a run began with, or as suits this machine.

    Args:
        device: the setting.
        before: the settled device of the run that goes on, if one does.
    """
    if before is not None:
        begun = {key: getattr(before, key) for key in ("dtype", "linear") if getattr(device, key) == "auto"}
        device = device.model_copy(update=begun)
    if device.dtype == "auto":
        fast = device.kind == "cuda" or torch.cpu._is_amx_tile_supported()
        device = device.model_copy(update={"dtype": "bfloat16" if fast else "float32"})
    if device.linear == "auto":
        packed = device.kind == "cpu" and packing_suits(getattr(torch, device.dtype))
        device = device.model_copy(update={"linear": "packed" if packed else "plain"})
    return device


def ready(model: M, device: Device) -> M:
    """Bring a model to a settled device, in place, for inference alone; one without values stays where it is."""
    if on_meta():
        return model.eval().requires_grad_(False)
    model = shape(model.to(device.kind).eval().requires_grad_(False), device)
    if device.kind == "cuda" and device.dtype == "bfloat16":
        warn_of_emulation()
    return model


def shape(model: M, device: Device) -> M:
    """Give a model, in place, the types and the layers that a settled device computes with."""
    if device.dtype == "bfloat16":
        round_products(model)
    if device.linear == "packed" or device.dtype == "bfloat16":
        replace_linear(model, device.kind, packed=device.linear == "packed")
    if device.kind == "cpu" and device.dtype == "bfloat16":
        for module in model.modules():
            if isinstance(module, VisionTower):
                module.unfuse_attention()
    return model


def round_products(model: nn.Module) -> None:
    """Bring the weights of a model's large products to bfloat16, in place.

    The residual stream, its norms, and the heads of ITM and ITC stay in float32: they are a small part of the work, and
    what is rounded there adds up over the blocks.
    """
    for module in model.modules():
        if isinstance(module, VisionTower | TextBlock):
            for part in module.modules():
                if isinstance(part, nn.Linear | nn.Conv2d | nn.GroupNorm):
                    part.to(torch.bfloat16)
        if isinstance(module, TextStack):
            module.embeddings.words.to(torch.bfloat16)


def on_device(pixels: Tensor, device: Device) -> Tensor:
    """Bring RGB pixels, uint8 (B, 3, S, S), to a tower's input there, float (B, 3, S, S). Bytes travel, not floats."""
    return normalise(send(pixels, torch.device(device.kind)), getattr(torch, device.dtype))


@cache
@torch.no_grad()
def packing_suits(dtype: torch.dtype) -> bool:
    """Return whether packed linear layers are the faster ones here, and give what plain ones give.

    Told by the processor's maker and not by a clock, so that a run has the same bytes however busy its machine is:
    in float32, torch's own products go through MKL, which is fast on Intel's processors alone.
    """
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not there or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    if dtype == torch.float32 and not (CPUINFO.is_file() and "AuthenticAMD" in CPUINFO.read_text()):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(shape, generator=generator).to(dtype) for shape in ((96, 64), (96,), (5, 64)))
    expected = F.linear(x, weight, bias)
    return bool((PackedLinear(weight, bias)(x) - expected).abs().max() <= CLOSE[dtype] * expected.abs().max())
