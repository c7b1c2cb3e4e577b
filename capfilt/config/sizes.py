"""The sizes of a model, as in a checkpoint's config.json."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from capfilt.config.schema import Config
from capfilt.errors import ConfigError

MAX_PATCHES = 1 << 16  # of an image: 4,096 pixels a side in patches of 16; no memory is enough for more


class VisionConfig(Config):
    """A ViT (arXiv 2010.11929). The defaults are ViT-B/16 at 384 pixels."""

    image_size: PositiveInt = Field(384, description="side of the square input, pixels")
    patch_size: PositiveInt = Field(16, description="side of a patch, pixels")
    width: PositiveInt = Field(768, description="width of the tower")
    depth: PositiveInt = Field(12, description="blocks")
    heads: PositiveInt = Field(12, description="attention heads")
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth in training")
    stem: Literal["patch", "conv"] = Field("patch", description="how patches become tokens; conv learns from scratch")

    @model_validator(mode="after")
    def _whole_patches_and_heads(self) -> Self:
        if self.stem == "conv" and (self.patch_size < 2 or self.patch_size.bit_count() != 1):
            raise ValueError(f"patch_size {self.patch_size} is not a power of 2, which stem: conv needs")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.tokens > 1 + MAX_PATCHES:
            found = f"{self.tokens - 1:,} patches of {self.patch_size} pixels"
            raise ValueError(f"image_size {self.image_size} makes {found}, and {MAX_PATCHES:,} are the most")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be split into {self.heads} heads")
        return self

    def alike(self, other: "VisionConfig") -> bool:
        """Return whether the same weights encode an image alike in both towers."""
        return self == other.model_copy(update={"drop_path": self.drop_path})  # which only training reads

    @property
    def tokens(self) -> int:
        """The class token and one for each patch."""
        return 1 + (self.image_size // self.patch_size) ** 2


class TextConfig(Config):
    """A BERT-like stack. The defaults are BERT-base with BLIP's two added tokens."""

    vocabulary: PositiveInt = Field(30524, description="words, [DEC] and [ENC] included")
    width: PositiveInt = Field(768, description="width of the stack")
    depth: PositiveInt = Field(12, description="blocks")
    heads: PositiveInt = Field(12, description="attention heads")
    mlp_width: PositiveInt = Field(3072, description="inner width of the MLP")
    positions: PositiveInt = Field(512, description="longest text, tokens")
    norm_eps: PositiveFloat = Field(1e-12, description="epsilon of the layer norms")
    dropout: float = Field(0.1, ge=0, lt=1, description="of embeddings, attention and sublayers, in training")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} cannot be split into {self.heads} heads")
        return self


class Sizes(Config):
    """What every kind of model has."""

    vision: VisionConfig = Field(VisionConfig(), description="the vision tower")
    text: TextConfig = Field(TextConfig(), description="the text stack; in VQA both of them")

    def require_room(self, key: str, tokens: int) -> None:
        """Raise ConfigError if texts of `tokens`, as a job's key allows them, are too long for the model."""
        if tokens > self.text.positions:
            raise ConfigError(f"{key}: {tokens}, the model takes {self.text.positions}; lower it")


class MEDConfig(Sizes):
    """The sizes of MED and which of its roles a checkpoint holds."""

    projection: PositiveInt = Field(256, description="width of the contrastive features")
    encoder: bool = Field(True, description="holds what scores texts: encoder self-attention, ITC and ITM heads")
    decoder: bool = Field(True, description="holds what writes captions: decoder self-attention and language head")


class VQASizes(Sizes):
    """The sizes of a model that answers questions."""


class NLVR2Sizes(Sizes):
    """The sizes of a model that judges a sentence about two images."""

    merge_from: NonNegativeInt = Field(
        6, description="text blocks from this one on merge what they see in the two images by weights, not by the mean"
    )
