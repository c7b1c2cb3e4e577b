"""The device of a training step, and its precision."""

from contextlib import AbstractContextManager
from typing import NamedTuple

import torch

from capfilt.config.training import TrainingDevice
from capfilt.hardware import require_device
from capfilt.med.gpu import keep_float32


class Precision(NamedTuple):
    """A device and the type of its matrix products; weights and sums stay in float32."""

    device: torch.device
    dtype: torch.dtype

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context that a forward pass runs in."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


def precision(settings: TrainingDevice) -> Precision:
    """Return the device and type that settings name, and set torch's threads and kernels.

    Raises:
        ConfigError: a GPU is asked for and there is none.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    require_device(settings.kind, "set device.kind: cpu")
    device = torch.device("cuda" if torch.cuda.is_available() and settings.kind != "cpu" else "cpu")
    # On Hopper cuDNN's attention, which torch prefers where there is a mask, returns gradients that are not numbers for
    # some lengths, 64 among them, and strongly negative scores: pytorch issue 196678, cudnn-frontend issue 1072.
    torch.backends.cuda.enable_cudnn_sdp(False)
    keep_float32()
    if settings.dtype != "auto":
        return Precision(device, getattr(torch, settings.dtype))
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Precision(device, torch.bfloat16 if fast else torch.float32)
