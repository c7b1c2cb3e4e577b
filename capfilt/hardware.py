"""Whether the device that settings name is there."""

import torch

from capfilt.errors import ConfigError


def require_device(kind: str, remedy: str) -> None:
    """Raise ConfigError, with what to do, if a GPU is asked for and torch sees none in this process."""
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device.kind: {kind}, but torch sees no GPU here; {remedy}")
