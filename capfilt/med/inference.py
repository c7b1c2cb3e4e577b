"""How a model computes where it infers: device, precision, and the form of its linear layers."""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from capfilt.config import Device
from capfilt.med.packed import PackedLinear, pack
from capfilt.med.vision import VisionTower, normalise

TRIAL = {577: 1, 8: 20}  # rows of a product, and how many of them: an image's tokens, then the steps of captions
TRIAL_ROUNDS = 5
LEAST_GAIN = 1.05
CLOSE = {"float32": 1e-5, "bfloat16": 3e-2}  # relative to the largest value; one rounding of each type

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
        pays = device.kind == "cpu" and packing_pays(getattr(torch, device.dtype))
        device = device.model_copy(update={"linear": "packed" if pays else "plain"})
    return device


def ready(model: M, device: Device) -> M:
    """Bring a model to a settled device, in place, for inference alone."""
    dtype = getattr(torch, device.dtype)
    model = model.to(device.kind, dtype).eval().requires_grad_(False)
    if device.linear == "packed":
        pack(model)
    if device.kind == "cpu" and dtype == torch.bfloat16:
        for module in model.modules():
            if isinstance(module, VisionTower):
                module.unfuse_attention()
    return model


def on_device(pixels: Tensor, device: Device) -> Tensor:
    """Bring RGB pixels, uint8 (B, 3, S, S), to a tower's input there, float (B, 3, S, S). Bytes travel, not floats."""
    pinned = pixels.pin_memory() if device.kind == "cuda" else pixels
    return normalise(pinned.to(device.kind, non_blocking=True), getattr(torch, device.dtype))


@cache
@torch.no_grad()
def packing_pays(dtype: torch.dtype) -> bool:
    """Try on this machine whether packed linear layers agree with plain ones and are faster, in about half a second."""
    there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not there or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((3072, 768), (3072,)))
    packed = PackedLinear(weight, bias)
    plain_seconds = packed_seconds = 0.0
    for rows, times in TRIAL.items():
        x = torch.randn(rows, 768, generator=generator).to(dtype)
        expected = F.linear(x, weight, bias)
        if (packed(x) - expected).abs().max() > CLOSE[str(dtype).removeprefix("torch.")] * expected.abs().max():
            return False
        plain_seconds += times * _fastest(partial(F.linear, x, weight, bias))
        packed_seconds += times * _fastest(partial(packed, x))
    return plain_seconds > LEAST_GAIN * packed_seconds


def _fastest(work: Callable[[], Tensor]) -> float:
    seconds = []
    for _ in range(TRIAL_ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
