"""Settings of the demo: how large its world is, and how long its models learn."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from capfilt.config.bootstrap import Policy
from capfilt.config.model import ModelSettings
from capfilt.config.schema import Config
from capfilt.config.training import Schedule, TrainingDevice


class DemoModel(Config):
    """The sizes of the demo's models; vision tower and text stack are equally wide."""

    image_size: PositiveInt = Field(64, description="side of the rendered images, pixels")
    patch_size: PositiveInt = Field(16, description="side of a patch, pixels")
    stem: Literal["patch", "conv"] = Field("conv", description="how patches become tokens")
    width: PositiveInt = Field(128, description="width of both halves")
    heads: PositiveInt = Field(8, description="attention heads of both halves")
    vision_depth: PositiveInt = Field(2, description="blocks of the vision tower")
    text_depth: PositiveInt = Field(2, description="blocks of the text stack")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the text stack")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        self.settings(vocabulary="vocab.txt")
        return self

    def settings(self, vocabulary: str) -> ModelSettings:
        """Return the settings of a model with the words of a vocabulary file."""
        return ModelSettings(
            image_size=self.image_size,
            patch_size=self.patch_size,
            stem=self.stem,
            vision_width=self.width,
            vision_depth=self.vision_depth,
            vision_heads=self.heads,
            text_width=self.width,
            text_depth=self.text_depth,
            text_heads=self.heads,
            positions=64,
            dropout=self.dropout,
            projection=self.width // 2,
            vocabulary=vocabulary,
        )


class DemoConfig(Config):
    """Render a world, train a captioner and a filter on it, and run the main job on shards they have not seen."""

    output: str = Field(description="folder for everything the demo writes")
    seed: NonNegativeInt = Field(0, description="of the world and of all training")
    human_samples: PositiveInt = Field(description="scenes with five true captions each, to train on")
    web_samples: PositiveInt = Field(description="scenes with noisy web texts, pre-trained on and bootstrapped")
    unseen_samples: PositiveInt = Field(description="scenes with noisy web texts that no model has seen, bootstrapped")
    model: DemoModel = Field(DemoModel(), description="sizes")
    pretraining: Schedule = Field(description="of the first model, on human and web texts")
    captioner: Schedule = Field(description="of the captioner, on human texts")
    filter: Schedule = Field(description="of the filter, on human texts")
    retraining: Schedule = Field(description="of the model that is trained on the clean shards, from random weights")
    shared_vision: bool = Field(False, description="the filter takes the captioner's vision tower (vision_from)")
    itm_warmup: float = Field(0.5, ge=0, lt=1, description="share of the pre-training steps before ITM joins")
    device: TrainingDevice = Field(TrainingDevice(), description="where the models learn")
    policy: Policy = Field(Policy(), description="which texts the bootstrap job keeps")
    batch_size: PositiveInt = Field(64, description="images in a forward pass of the bootstrap job")
    workers: PositiveInt = Field(2, description="Ray actors of the bootstrap job")
