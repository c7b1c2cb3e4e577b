"""Whether the device that settings name is there."""

import torch

from capfilt.errors import ConfigError


def require_device(kind: str, remedy: str) -> None:
    """Raise ConfigError, with what to do, if a GPU is asked for and torch sees none in this process."""
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device.kind: {kind}, but torch sees no GPU here; {remedy}")


def require_gpus(kind: str, gpus_per_worker: float) -> None:
    """Raise ConfigError, with what to do, if workers on Ray are to compute on a GPU and reserve none."""
    if kind == "cuda" and not gpus_per_worker:
        raise ConfigError(
            "cluster.gpus_per_worker: 0, which gives a worker no GPU for device.kind: cuda; set it to 1, or "
            "device.kind: cpu"
        )
