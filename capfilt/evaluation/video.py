"""Clips as sequences of frames, for zero-shot video retrieval with a model of images.

Shapes: B clips, F frames of a clip, M image tokens of a frame, D image width, E projection width, S side of the input.
Source: BLIP, arXiv 2201.12086, section 5.6; retrieval itself is in retrieval.py.
"""

import re
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from capfilt.med.model import MED


def in_time(names: Iterable[str]) -> list[str]:
    """Return the names of frames in the order of the numbers in them: frame 2 comes before frame 10."""
    return sorted(names, key=lambda name: [int(s) if s.isdecimal() else s for s in re.split(r"(\d+)", name)])


def evenly_spaced(names: Sequence[str], wanted: int) -> list[str]:
    """Return the first name of each of `wanted` equal parts; some names repeat if there are fewer."""
    return [names[part * len(names) // wanted] for part in range(wanted)]


@torch.inference_mode()
def encode(model: MED, clips: Tensor) -> tuple[Tensor, Tensor]:
    """Encode clips; an image is a clip of one frame.

    Args:
        model: with an encoder.
        clips: normalised frames, float (B, F, 3, S, S).

    Returns:
        The concatenated tokens of a clip's frames (B, F * M, D), which ITM attends to, and contrastive features (B, E):
        the mean of the frames' projections, normalised to length 1.
    """
    tokens = model.encode_image(clips.flatten(0, 1))  # (B * F, M, D)
    frames = tokens.view(*clips.shape[:2], *tokens.shape[1:])  # (B, F, M, D)
    features = F.normalize(model.vision_proj(frames[:, :, 0]).mean(dim=1), dim=-1)  # (B, E)
    return frames.flatten(1, 2), features  # (B, F * M, D), (B, E)
