"""Settings of the evaluation job: what is measured, on which checkpoint and data, and how."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from capfilt.config.bootstrap import Device, FilterSettings, ImageLimits, Sampling
from capfilt.config.loading import Config

Task = Literal["retrieval", "captioning", "vqa", "nlvr2", "video", "judgments", "foreign_texts"]
# The sections that belong to some tasks only.
READ_BY: dict[str, tuple[str, ...]] = {
    "scoring": ("retrieval", "video", "judgments", "foreign_texts"),
    "retrieval": ("retrieval", "video"),
    "captioning": ("captioning",),
    "video": ("video",),
    "verdicts": ("judgments", "foreign_texts"),
}


class EvaluationData(Config):
    """A published annotation file and the images that it speaks of."""

    annotations: str = Field(description="file or URL: Karpathy, BLIP or COCO JSON, or one JSON object a line")
    images: str = Field(description="folder or URL that the names of images, or of clips, start from")
    split: str | None = Field(None, description="entries of this split (NoCaps: domain) alone; null takes all")
    first: PositiveInt | None = Field(None, description="only so many entries, for a quick look; null takes all")
    limits: ImageLimits = Field(ImageLimits(), description="what an image may cost; others are left out and counted")


class RetrievalSettings(Config):
    """ITC finds the likely candidates of each query, ITM ranks them anew."""

    top_k: PositiveInt = Field(256, description="candidates ranked anew; the original: 256 COCO, 128 Flickr and video")
    texts_per_pass: PositiveInt = Field(256, description="texts matched with an image in one pass")


class VideoSettings(Config):
    """How a clip becomes images."""

    frames: PositiveInt = Field(8, description="frames of a clip, evenly spaced; the paper takes 8 for retrieval")


class VerdictSettings(Config):
    """When a person's verdict, and when a model's score, means a match; and what own captions are held against."""

    yes_share: float = Field(0.5, ge=0, lt=1, description="a larger share of people who say yes is a match")
    expert_score: float = Field(3.0, description="least mean score of experts, 1 to 4, that is a match")
    itm: float = Field(0.5, ge=0, le=1, description="least P(match) at which precision and recall are told")
    itc: float = Field(0.3, ge=-1, le=1, description="least cosine at which precision and recall are told")
    foreign: str | None = Field(
        None, description="foreign_texts: JSON lines with a text each; null takes captions of other images"
    )
    foreign_per_image: PositiveInt = Field(5, description="foreign_texts: texts drawn for each image")
    seed: NonNegativeInt = Field(0, description="of the draw and of the confidence intervals")
    resamples: PositiveInt = Field(1000, description="draws of all images behind a confidence interval")


class EvaluateConfig(Config):
    """Measure a checkpoint on an annotated set, and write one JSON file that tells all it takes to do so again."""

    task: Task = Field(description="what is measured")
    checkpoint: str = Field(description="a folder, an original .pth, or a transformers folder")
    data: EvaluationData = Field(description="on what")
    output: str = Field(description="JSON file or URL for the result; replaced if present")
    image_size: PositiveInt | None = Field(
        None, description="side of the square input, pixels, for which positions are interpolated; the checkpoint's own"
    )
    batch_size: PositiveInt = Field(32, description="images in a forward pass")
    decode_threads: PositiveInt = Field(2, description="threads that decode images")
    device: Device = Field(Device(), description="where the model runs")
    scoring: FilterSettings = Field(FilterSettings(), description="how texts are read by ITC and ITM")
    retrieval: RetrievalSettings = Field(RetrievalSettings(), description="retrieval and video")
    video: VideoSettings = Field(VideoSettings(), description="video")
    captioning: Sampling = Field(
        Sampling(method="beam", repetition_penalty=1.0),
        description="captioning; the original has repetition_penalty 1.0 for COCO and 1.1 for NoCaps",
    )
    verdicts: VerdictSettings = Field(VerdictSettings(), description="judgments and foreign_texts")

    @model_validator(mode="after")
    def _no_setting_is_ignored(self) -> Self:
        for section, tasks in READ_BY.items():
            if self.task not in tasks and getattr(self, section) != type(self).model_fields[section].default:
                raise ValueError(f"{section} is read by {', '.join(tasks)}, not by task: {self.task}; leave it out")
        if self.captioning.captions > 1:
            raise ValueError(f"captioning.captions {self.captioning.captions}: one caption an image is measured; use 1")
        return self
