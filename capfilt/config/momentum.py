"""Settings of the momentum copies that ITC compares with, and of their queues of features."""

from typing import Literal

from pydantic import Field, PositiveInt

from capfilt.config.schema import Config


class MomentumSettings(Config):
    """Slow copies of the encoders, queues of their features, soft targets; defaults of the original code."""

    decay: float = Field(0.995, ge=0, lt=1, description="share of its weights that a copy keeps in each step")
    queue: PositiveInt = Field(
        57600,
        description="image features, and text features, that are kept; a multiple of the images in a step. A filter "
        "starts with the queues of its pre-training checkpoint, so it needs the same number",
    )
    alpha: float = Field(0.4, ge=0, le=1, description="weight of the copies' similarities in the targets of ITC")
    alpha_ramp: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the steps in which alpha rises from 0; code: 2 of 20 epochs, in retrieval 1 of 6",
    )
    negatives: Literal["same_rank", "all_ranks"] = Field(
        "same_rank",
        description="where hard negatives come from; code: all_ranks for retrieval on COCO, else same_rank",
    )
