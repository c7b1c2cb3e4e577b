"""Settings of the training data: which shards in which mixture, how they are read, and what chance does to images."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from capfilt.config.bootstrap import ImageLimits
from capfilt.config.schema import Config


class ShardSet(Config):
    """Shards of one kind. Clean shards of capfilt, human-annotated shards and web shards read alike."""

    shards: list[str] = Field(min_length=1, description="shards: files, folders, globs, {000..127} ranges, URLs")
    weight: PositiveFloat | None = Field(
        None, description="share of each batch, relative to the other weights; give one to every source or to none"
    )
    parts: PositiveInt = Field(
        1, description="an epoch reads every n-th shard, the next one the next; the paper reads LAION in 5 parts"
    )


class Augmentation(Config):
    """What chance does to an image. The defaults do nothing: the whole image is resized to a square.

    The original's numbers are min_scale 0.2 in pre-training and 0.5 in fine-tuning, flip and two operations in both.
    """

    min_scale: float | None = Field(
        None,
        gt=0,
        le=1,
        description="minimum share of the image's area that is cut out and resized; null takes all of it",
    )
    flip: bool = Field(
        False, description="mirror half of the images, as the original: texts that say left or right are not changed"
    )
    operations: NonNegativeInt = Field(
        0, description="RandAugment: operations drawn for an image; the original draws 2"
    )
    chance: float = Field(0.5, ge=0, le=1, description="RandAugment: probability that a drawn operation is applied")
    level: float = Field(5.0, ge=0, le=10, description="RandAugment: strength; at 5, brightness and sharpness stay")


class DataSettings(Config):
    """What is trained on."""

    shards: list[str] = Field([], description="short for one source of these shards")
    sources: list[ShardSet] = Field(
        [],
        description="a list of {shards, weight, parts}. Without weights all are one pool, and every sample comes once "
        "an epoch, as in the original, which joins its files; with weights each source goes round on its own",
    )
    augmentation: Augmentation = Field(Augmentation(), description="what chance does to an image")
    images: ImageLimits = Field(ImageLimits(), description="what an image may cost; others are replaced and counted")
    damage: Literal["fail", "keep-readable"] = Field("fail", description="what to do with a cut or damaged shard")
    max_words: PositiveInt = Field(30, description="a longer text is cut, words")
    max_tokens: int = Field(30, ge=3, description="a longer text is cut, tokens, [CLS] and [SEP] included")
    block_size: PositiveInt = Field(
        64, description="neighbours in a shard that are read at once, and kept in memory for each image of a batch"
    )
    workers: NonNegativeInt = Field(0, description="processes that decode images; 0 decodes in the training process")
    in_memory: bool = Field(False, description="keep decoded images; for sets that fit into memory")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.shards) == bool(self.sources):
            raise ValueError(f"give either shards or sources (found {'both' if self.shards else 'neither'})")
        bare = [number for number, source in enumerate(self.sources) if source.weight is None]
        if 0 < len(bare) < len(self.sources):
            raise ValueError(
                "give every source a weight, or none: without weights they are one pool "
                f"(found none in sources.{bare[0]})"
            )
        return self

    def mixture(self) -> list[ShardSet]:
        """Return the sources, also when they were given in short."""
        return self.sources or [ShardSet(shards=self.shards)]
