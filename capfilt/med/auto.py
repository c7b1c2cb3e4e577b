"""Device settings that are "auto", resolved. No vision tower is imported: timm takes seconds, and a driver has none."""

import torch

from capfilt.config import Device
from capfilt.med.cpu import MATRIX_UNITS
from capfilt.med.packed import packing_suits


def resolve_auto(device: Device, before: Device | None = None) -> Device:
    """Return a device with each "auto" resolved: as when the run began, or as suits this machine.

    Args:
        device: the setting.
        before: the resolved device of the run that is resumed, if any.
    """
    if before is not None:
        begun = {key: getattr(before, key) for key in ("dtype", "linear") if getattr(device, key) == "auto"}
        device = device.model_copy(update=begun)
    if device.dtype == "auto":
        fast = device.kind == "cuda" or MATRIX_UNITS
        device = device.model_copy(update={"dtype": "bfloat16" if fast else "float32"})
    if device.linear == "auto":
        packed = device.kind == "cpu" and packing_suits(getattr(torch, device.dtype))
        device = device.model_copy(update={"linear": "packed" if packed else "plain"})
    return device
