"""Captioners: models that write candidate texts for an image."""

import math
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from capfilt.errors import ModelError
from capfilt.records import Caption
from capfilt.turns import UNSHARED, Turn


class Captioner(Protocol):
    """Writes captions. Its output for an image depends on the image, its noise and the batch's shape alone."""

    name: str  # hash of the checkpoint
    image_size: int  # side of the square input, pixels

    def caption(self, pixels: Tensor, noise: Sequence[int], turn: Turn = UNSHARED) -> list[list[Caption]]:
        """Return the captions of each image.

        Args:
            pixels: RGB, uint8, (B, 3, S, S) with S = image_size; for a job on a GPU they are there, if it has room.
            noise: one seed for each image; all randomness of its captions follows from it.
            turn: to be entered once, around all that needs the model or its device, which several threads share. Work
                on the host alone is better done outside of it, while another batch has the model.
        """
        ...


def require_finite_logprob(caption: Caption, where: str, writer: str) -> None:
    """Raise ModelError if a caption's log-probability is not finite: its tokens come from no distribution then."""
    if not math.isfinite(caption.logprob):
        raise ModelError(
            f"{where}: captioner {writer} gives {caption.text!r} the log-probability {caption.logprob}; "
            "check its weights, or use device.dtype: float32"
        )
