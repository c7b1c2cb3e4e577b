"""Filters: models that score how well a text fits an image."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from capfilt.errors import ModelError
from capfilt.turns import UNSHARED, Turn


class Scores(NamedTuple):
    """A filter's scores of one (image, text) pair."""

    itm: float  # P(match), in [0, 1]
    itc: float | None = None  # cosine of the contrastive features, in [-1, 1]; None when the filter has none


class Filter(Protocol):
    """Scores texts. The scores of a pair depend on the pair and the batch's shape alone."""

    name: str  # hash of the checkpoint
    image_size: int  # side of the square input, pixels

    def score(self, pixels: Tensor, texts: Sequence[Sequence[str]], turn: Turn = UNSHARED) -> list[list[Scores]]:
        """Return the scores of each text of each image.

        Args:
            pixels: RGB, uint8, (B, 3, S, S) with S = image_size; for a job on a GPU they are there, if it has room.
            texts: texts[i] belong to pixels[i]; an image may have none.
            turn: as for Captioner.caption.
        """
        ...


def require_finite_scores(scores: Scores, where: str, judge: str, text: str) -> None:
    """Raise ModelError if a score that a filter gives a text is not finite; an itc of None is not checked."""
    itm, itc = scores
    if not math.isfinite(itm) or not math.isfinite(itc or 0.0):
        raise ModelError(
            f"{where}: filter {judge} gives itm {itm}, itc {itc} to {text!r}; "
            "check its weights, or use device.dtype: float32"
        )
