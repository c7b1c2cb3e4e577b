"""Settings of the training jobs: pre-training from scratch, and fine-tuning a captioner or a filter."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from capfilt.config.data import DataSettings
from capfilt.config.loading import Config


class Schedule(Config):
    """How long and how fast a model learns (AdamW with a linear warm-up, then a cosine to 0)."""

    steps: PositiveInt = Field(description="optimiser steps")
    batch_size: PositiveInt = Field(64, description="images of a step")
    texts_per_image: PositiveInt = Field(1, description="texts drawn for an image in a step; the paper draws 1")
    learning_rate: PositiveFloat = Field(3e-4, description="peak")
    warmup_steps: NonNegativeInt = Field(100, description="steps until the peak")
    weight_decay: float = Field(0.05, ge=0, description="of every parameter, as the original")
    beta2: float = Field(0.999, gt=0, lt=1, description="of AdamW: memory of the squared gradients")
    max_gradient_norm: PositiveFloat = Field(1.0, description="a longer gradient is scaled down to this")
    checkpoint_steps: PositiveInt = Field(500, description="steps between two states to resume from")


class TrainingDevice(Config):
    """Where a model is trained."""

    kind: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes the GPU where there is one")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of matrix products (autocast); auto: bfloat16 where the device has units for it"
    )
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves torch's own number")


class ModelSettings(Config):
    """The sizes of a model that starts from random weights. The defaults are ViT-B/16 and BERT-base at 224 pixels."""

    image_size: PositiveInt = Field(224, description="side of the square input, pixels")
    patch_size: PositiveInt = Field(16, description="side of a patch, pixels")
    stem: Literal["patch", "conv"] = Field(
        "patch",
        description="how patches become tokens: one linear map, or small convolutions, which learn shapes sooner",
    )
    vision_width: PositiveInt = Field(768, description="width of the vision tower")
    vision_depth: PositiveInt = Field(12, description="blocks of the vision tower")
    vision_heads: PositiveInt = Field(12, description="attention heads of the vision tower")
    text_width: PositiveInt = Field(768, description="width of the text stack")
    text_depth: PositiveInt = Field(12, description="blocks of the text stack")
    text_heads: PositiveInt = Field(12, description="attention heads of the text stack")
    positions: PositiveInt = Field(512, description="longest text, tokens")
    dropout: float = Field(0.1, ge=0, lt=1, description="of the text stack")
    projection: PositiveInt = Field(256, description="width of the contrastive features")
    vocabulary: str = Field(description="BERT vocab.txt")


class PretrainConfig(Config):
    """Train MED from random weights on ITC + ITM + LM (arXiv 2201.12086, section 3.2)."""

    output: str = Field(description="folder of the run: checkpoint, state, metrics; resumed if present")
    model: ModelSettings = Field(description="sizes")
    data: DataSettings = Field(description="what is trained on")
    schedule: Schedule = Field(description="how long and how fast")
    itm_warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps before ITM joins; the paper has none")
    seed: NonNegativeInt = Field(0, description="of weights, order, text draws, dropout and negatives")
    device: TrainingDevice = Field(TrainingDevice(), description="where")


class FinetuneConfig(Config):
    """Fine-tune a captioner (LM) or a filter (ITC + ITM), each a checkpoint of its own (section 3.3)."""

    role: Literal["captioner", "filter"] = Field(description="what the checkpoint becomes")
    checkpoint: str = Field(description="start: a checkpoint that holds the role, usually a pre-training one")
    output: str = Field(description="folder of the run: checkpoint, state, metrics; resumed if present")
    data: DataSettings = Field(description="what is trained on")
    schedule: Schedule = Field(description="how long and how fast")
    image_size: PositiveInt | None = Field(
        None, description="side of the square input, pixels, for which positions are interpolated; the checkpoint's own"
    )
    prompt: str = Field("a picture of ", description="captioner: text in front of each caption, given and not scored")
    seed: NonNegativeInt = Field(0, description="of order, text draws, dropout and negatives")
    device: TrainingDevice = Field(TrainingDevice(), description="where")
