"""Settings of the training data: which shards, which samples of them, and how they are read."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from capfilt.config.bootstrap import ImageLimits
from capfilt.config.loading import Config


class DataSettings(Config):
    """What is trained on. Clean shards of capfilt, human-annotated shards and web shards read alike."""

    shards: list[str] = Field(min_length=1, description="shards: files, folders, globs, {000..127} ranges, URLs")
    images: ImageLimits = Field(ImageLimits(), description="what an image may cost; others are left out and counted")
    damage: Literal["fail", "keep-readable"] = Field("fail", description="what to do with a cut or damaged shard")
    max_words: PositiveInt = Field(30, description="a longer text is cut, words")
    max_tokens: int = Field(30, ge=3, description="a longer text is cut, tokens, [CLS] and [SEP] included")
    workers: NonNegativeInt = Field(0, description="processes that decode images; 0 decodes in the training process")
    in_memory: bool = Field(False, description="keep decoded images; for sets that fit into memory")
