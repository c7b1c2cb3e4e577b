"""Settings of the evaluation job: what is measured, on which checkpoint and data, and how."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from capfilt.config.bootstrap import Device, FilterSettings, ImageLimits, Sampling
from capfilt.config.schema import Config
from capfilt.config.tasks import NLVR2Settings, QuestionData, SentenceData, VQASettings

Task = Literal["retrieval", "captioning", "vqa", "nlvr2", "video", "judgments", "foreign_texts"]
ON_CAPTIONS: tuple[Task, ...] = ("retrieval", "captioning", "video", "judgments", "foreign_texts")
# The keys that belong to some tasks only. One without a default is needed by its tasks.
READ_BY: dict[str, tuple[Task, ...]] = {
    "batch_size": ON_CAPTIONS,
    "decode_threads": ON_CAPTIONS,
    "scoring": ("retrieval", "video", "judgments", "foreign_texts"),
    "retrieval": ("retrieval", "video"),
    "captioning": ("captioning",),
    "video": ("video",),
    "verdicts": ("judgments", "foreign_texts"),
    "data": ON_CAPTIONS,
    "questions": ("vqa",),
    "vqa": ("vqa",),
    "sentences": ("nlvr2",),
    "nlvr2": ("nlvr2",),
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
    score: Literal["logit_and_cosine", "match"] = Field(
        "logit_and_cosine",
        description="what ranks anew: the ITM logit plus the cosine, as the original's code; match: P(match) alone, "
        "as the paper says",
    )
    texts_per_pass: PositiveInt = Field(256, description="texts matched with an image in one pass")


class CaptioningSettings(Sampling):
    """How captions are written. The defaults are the original's for COCO."""

    method: Literal["nucleus", "greedy", "beam"] = Field("beam", description="how the next token is chosen")
    repetition_penalty: PositiveFloat = Field(
        1.0, description="divides the score of tokens already written; the original: 1.0 COCO, 1.1 NoCaps"
    )

    @model_validator(mode="after")
    def _one_caption(self) -> Self:
        if self.captions > 1:
            raise ValueError(f"captions {self.captions}: one caption of an image is measured; leave it at 1")
        return self


class EvaluationDevice(Device):
    """Where and how exactly the measured model computes."""

    kind: Literal["cpu", "cuda"] = Field("cpu", description="where the model runs")


class VideoSettings(Config):
    """How a clip becomes images."""

    frames: PositiveInt = Field(
        8, description="frames of a clip, evenly spaced in the order of their numbers; the paper takes 8 for retrieval"
    )


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
    checkpoint: str = Field(description="a folder, an original .pth, or a transformers folder; path or URL")
    data: EvaluationData | None = Field(None, description="on what; VQA and NLVR2 have questions and sentences instead")
    questions: QuestionData | None = Field(None, description="vqa: on what")
    sentences: SentenceData | None = Field(None, description="nlvr2: on what")
    output: str = Field(description="JSON file or URL for the result; replaced if present")
    image_size: PositiveInt | None = Field(
        None, description="side of the square input, pixels, for which positions are interpolated; the checkpoint's own"
    )
    batch_size: PositiveInt = Field(32, description="images in a forward pass; VQA and NLVR2 have their own")
    decode_threads: PositiveInt = Field(2, description="threads that decode images; VQA and NLVR2 have workers")
    device: EvaluationDevice = Field(EvaluationDevice(), description="where the model runs")
    scoring: FilterSettings = Field(FilterSettings(), description="how texts are read by ITC and ITM")
    retrieval: RetrievalSettings = Field(RetrievalSettings(), description="retrieval and video")
    video: VideoSettings = Field(VideoSettings(), description="video")
    captioning: CaptioningSettings = Field(CaptioningSettings(), description="captioning")
    verdicts: VerdictSettings = Field(VerdictSettings(), description="judgments and foreign_texts")

    vqa: VQASettings | None = Field(None, description="vqa")
    nlvr2: NLVR2Settings = Field(NLVR2Settings(), description="nlvr2")

    @model_validator(mode="after")
    def _sections_of_the_task(self) -> Self:
        for section, tasks in READ_BY.items():
            value = getattr(self, section)
            if self.task in tasks and value is None:
                raise ValueError(
                    f"task: {self.task} needs the section {section}; capfilt config evaluate shows its keys"
                )
            if self.task not in tasks and value != type(self).model_fields[section].default:
                raise ValueError(f"{section} is read by {', '.join(tasks)}, not by task: {self.task}; leave it out")
        return self
