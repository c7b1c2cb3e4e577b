"""Settings of the evaluation job: the task, the checkpoint, the data, and how it is measured."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from capfilt.config.bootstrap import Device, Divisor, FilterSettings, ImageLimits, Sampling
from capfilt.config.schema import Config
from capfilt.config.tasks import NLVR2Settings, QuestionData, SentenceData, VQASettings

Task = Literal["retrieval", "captioning", "vqa", "nlvr2", "video", "judgments", "foreign_texts"]
ON_CAPTIONS: tuple[Task, ...] = ("retrieval", "captioning", "video", "judgments", "foreign_texts")
# The keys that only some tasks read. These tasks require those without a default.
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
    """A published annotation file and its images."""

    annotations: str = Field(description="file or URL: Karpathy, BLIP or COCO JSON, or one JSON object a line")
    images: str = Field(description="folder or URL that the names of images or clips are relative to")
    split: str | None = Field(None, description="only entries of this split (NoCaps: domain); null: all")
    first: PositiveInt | None = Field(None, description="only the first so many entries, for a quick look; null: all")
    limits: ImageLimits = Field(
        ImageLimits(), description="what an image may cost to decode; costlier ones are left out and counted"
    )


class RetrievalSettings(Config):
    """ITC finds the likely candidates of each query, ITM reranks them."""

    top_k: PositiveInt = Field(
        256, description="candidates to rerank; the original: 256 for COCO, 128 for Flickr and video"
    )
    score: Literal["logit_and_cosine", "match"] = Field(
        "logit_and_cosine",
        description="reranks by the ITM logit plus the cosine, as the original's code; match: by P(match) alone, as "
        "the paper says",
    )
    texts_per_pass: PositiveInt = Field(256, description="texts matched with an image in one pass")


class CaptioningSettings(Sampling):
    """How captions are generated. The defaults are the original's for COCO."""

    method: Literal["nucleus", "greedy", "beam"] = Field("beam", description="how the next token is chosen")
    repetition_penalty: Divisor = Field(
        1.0, description="divides the score of tokens already written; the original: 1.0 for COCO, 1.1 for NoCaps"
    )

    @model_validator(mode="after")
    def _one_caption(self) -> Self:
        if self.captions > 1:
            raise ValueError(f"captions {self.captions}: one caption per image is measured; leave it at 1")
        return self


class EvaluationDevice(Device):
    """The device of the measured model, and how exactly it computes."""

    kind: Literal["cpu", "cuda"] = Field("cpu", description="where the model runs")


class VideoSettings(Config):
    """How a clip becomes images."""

    frames: PositiveInt = Field(
        8, description="frames of a clip, evenly spaced in the order of their numbers; the paper takes 8 for retrieval"
    )


class VerdictSettings(Config):
    """Which verdicts of people, and which scores of a model, mean a match; and where foreign texts come from."""

    yes_share: float = Field(0.5, ge=0, lt=1, description="a larger share of people saying yes is a match")
    expert_score: float = Field(3.0, description="the lowest mean score of experts, 1 to 4, that is a match")
    itm: float = Field(
        0.5, ge=0, le=1, description="P(match) from which a pair counts as kept, for precision and recall"
    )
    itc: float = Field(
        0.3, ge=-1, le=1, description="cosine from which a pair counts as kept, for precision and recall"
    )
    foreign: str | None = Field(
        None, description="foreign_texts: JSON lines, each with a text; null: captions of other images"
    )
    foreign_per_image: PositiveInt = Field(5, description="foreign_texts: texts drawn for each image")
    seed: NonNegativeInt = Field(0, description="of the foreign texts and of the confidence intervals")
    resamples: PositiveInt = Field(1000, description="bootstrap resamples of the images for a confidence interval")


class EvaluateConfig(Config):
    """Measure a checkpoint on an annotated set, and write one JSON file with all that is needed to reproduce it."""

    task: Task = Field(description="what is measured")
    checkpoint: str = Field(description="path or URL of a folder, an original .pth or a transformers folder")
    data: EvaluationData | None = Field(
        None, description="annotations and images; for VQA and NLVR2 see questions and sentences"
    )
    questions: QuestionData | None = Field(None, description="vqa: questions and images")
    sentences: SentenceData | None = Field(None, description="nlvr2: sentences and images")
    output: str = Field(description="path or URL of the JSON file to write; an existing one is replaced")
    image_size: PositiveInt | None = Field(
        None, description="side of the square input, pixels; positions are interpolated; null: the checkpoint's own"
    )
    batch_size: PositiveInt = Field(32, description="images in a forward pass; VQA and NLVR2 have keys of their own")
    decode_threads: PositiveInt = Field(2, description="threads that decode images; VQA and NLVR2 use workers instead")
    device: EvaluationDevice = Field(EvaluationDevice(), description="where the model runs")
    scoring: FilterSettings = Field(FilterSettings(), description="how ITC and ITM read texts")
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
