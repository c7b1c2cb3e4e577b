"""Settings of a model that pre-training starts: its sizes."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from capfilt.config.schema import Config
from capfilt.config.sizes import MEDConfig

Size = Annotated[int, Field(gt=0, le=1 << 18)]  # so that the bytes of a tensor are a number that torch can count
Depth = Annotated[int, Field(gt=0, le=1000)]  # blocks; millions would be laid out for hours before memory ends


class ModelSettings(Config):
    """The sizes of a model that starts from random weights. The defaults are ViT-B/16 and BERT-base at 224 pixels."""

    image_size: Size = Field(224, description="side of the square input, pixels")
    patch_size: Size = Field(16, description="side of a patch, pixels")
    stem: Literal["patch", "conv"] = Field(
        "patch",
        description="how patches become tokens: one linear map, or small convolutions, which learn shapes sooner",
    )
    vision_width: Size = Field(768, description="width of the vision tower")
    vision_depth: Depth = Field(12, description="blocks of the vision tower")
    vision_heads: PositiveInt = Field(12, description="attention heads of the vision tower")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="stochastic depth of the vision tower; the original: 0 for ViT-B, 0.1 for ViT-L"
    )
    text_width: Size = Field(768, description="width of the text stack")
    text_depth: Depth = Field(12, description="blocks of the text stack")
    text_heads: PositiveInt = Field(12, description="attention heads of the text stack")
    positions: Size = Field(512, description="longest text, tokens")
    dropout: float = Field(0.1, ge=0, lt=1, description="of the text stack")
    projection: Size = Field(256, description="width of the contrastive features")
    vocabulary: str = Field(description="path or URL of a BERT vocab.txt or a tokenizer.json")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        self.sizes(vocabulary=1)
        return self

    def sizes(self, vocabulary: int) -> MEDConfig:
        """Return the sizes of the model for a vocabulary size, [DEC] and [ENC] included."""
        vision = {
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "stem": self.stem,
            "width": self.vision_width,
            "depth": self.vision_depth,
            "heads": self.vision_heads,
            "drop_path": self.drop_path,
        }
        text = {
            "vocabulary": vocabulary,
            "width": self.text_width,
            "depth": self.text_depth,
            "heads": self.text_heads,
            "mlp_width": 4 * self.text_width,
            "positions": self.positions,
            "dropout": self.dropout,
        }
        return MEDConfig.model_validate({"vision": vision, "text": text, "projection": self.projection})
