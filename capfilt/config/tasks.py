"""Settings of VQA and NLVR2: their annotation files, how their models are trained, and how answers are measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from capfilt.config.bootstrap import ImageLimits
from capfilt.config.data import Augmentation
from capfilt.config.loading import load_by
from capfilt.config.schema import Config
from capfilt.config.training import (
    FinetuneConfig,
    Schedule,
    Tracking,
    TrainingCluster,
    TrainingDevice,
    require_equal_shares,
)


class QuestionFile(Config):
    """Questions on images, as they were published."""

    questions: str = Field(
        description="file or URL: of VQAv2, question_answers.json of Visual Genome, or the original's vqa_*.json"
    )
    annotations: str | None = Field(
        None, description="VQAv2's annotations; null if the questions hold the answers, or if they are not public"
    )
    images: str = Field(
        description="path of an image: {image_id} is its number, {image} its name in the original's file; "
        "coco/train2014/COCO_train2014_{image_id:012d}.jpg"
    )


class QuestionData(Config):
    """What a VQA model is trained or measured on."""

    files: list[QuestionFile] = Field(min_length=1, description="read one after the other")
    single_answer_weight: float = Field(
        0.2, gt=0, le=1, description="weight of an answer that one person alone gave, as in Visual Genome"
    )
    max_words: PositiveInt = Field(50, description="a longer question is cut, words")
    max_tokens: int = Field(35, ge=3, description="a longer question or answer is cut, tokens, both ends included")
    limits: ImageLimits = Field(ImageLimits(), description="what an image may cost")
    workers: NonNegativeInt = Field(
        0, description="processes that decode images; 0 decodes in the process of the model"
    )


class SentenceFile(Config):
    """Sentences about two images, as they were published."""

    annotations: str = Field(description="file or URL: NLVR2's JSON lines, or the original's nlvr_*.json")
    images: str = Field(
        description="path of an image: {pair} is the identifier without its last number, {directory} the entry's, "
        "{side} 0 for left and 1 for right, {image} its name in the original's file; "
        "nlvr2/train/{directory}/{pair}-img{side}.png"
    )


class SentenceData(Config):
    """What an NLVR2 model is trained or measured on."""

    files: list[SentenceFile] = Field(min_length=1, description="read one after the other")
    swap: bool = Field(
        True,
        description="swap the two images, and the words left and right, of every second sentence at random: "
        "the original's code does so in evaluation too; the paper does not name it",
    )
    max_words: PositiveInt = Field(40, description="a longer sentence is cut, words")
    max_tokens: int = Field(64, ge=3, description="a longer sentence is cut, tokens, [ENC] and [SEP] included")
    limits: ImageLimits = Field(ImageLimits(), description="what an image may cost")
    workers: NonNegativeInt = Field(
        0, description="processes that decode images; 0 decodes in the process of the model"
    )


class VQASettings(Config):
    """How answers are found."""

    method: Literal["rank", "generate"] = Field(
        "rank", description="choose among the candidates, as in the paper's tables, or write freely by beam search"
    )
    candidates: str | None = Field(
        None, description="rank: JSON list of answers; the original's answer_list.json holds 3128"
    )
    top_k: PositiveInt = Field(128, description="rank: candidates, by their first token, whose likelihood is summed")
    beams: PositiveInt = Field(3, description="generate: hypotheses of the beam search")
    max_length: PositiveInt = Field(10, description="generate: maximum tokens of an answer, [DEC] included")
    min_length: NonNegativeInt = Field(1, description="generate: minimum tokens of an answer, [DEC] included")
    see_padding: bool = Field(
        True,
        description="generate: answers attend to the padding of their question, as in the original's code, and so "
        "depend on their batch; false hides it, as in training and in ranking (the paper does not say)",
    )
    batch_size: PositiveInt = Field(16, description="questions in a forward pass")

    @model_validator(mode="after")
    def _candidates_to_rank(self) -> Self:
        if self.method == "rank" and self.candidates is None:
            raise ValueError("rank needs candidates: name the JSON list of answers, or set method: generate")
        return self


class NLVR2Settings(Config):
    """How sentences are judged."""

    batch_size: PositiveInt = Field(64, description="sentences in a forward pass")
    seed: NonNegativeInt = Field(0, description="of the random swaps of data.swap")


class DownstreamConfig(Config):
    """What fine-tuning for VQA and for NLVR2 have in common."""

    checkpoint: str = Field(description="path or URL of the pre-training checkpoint to start from")
    output: str = Field(description="folder or URL of the run: checkpoint, states, metrics; resumed if present")
    schedule: Schedule = Field(description="how long and how fast")
    augmentation: Augmentation = Field(Augmentation(), description="what chance does to an image")
    image_size: PositiveInt | None = Field(
        None, description="side of the square input, pixels; positions are interpolated; null: the checkpoint's own"
    )
    drop_path: float = Field(0.1, ge=0, lt=1, description="stochastic depth of the vision tower; 0.1 in the original")
    seed: NonNegativeInt = Field(0, description="of the layers that are drawn, order, augmentation and dropout")
    device: TrainingDevice = Field(TrainingDevice(), description="where the model is trained")
    cluster: TrainingCluster = Field(TrainingCluster(), description="workers, and where they run")
    tracking: Tracking = Field(Tracking(), description="what the run writes about its progress")

    @model_validator(mode="after")
    def _each_entry_once(self) -> Self:
        if self.schedule.texts_per_image != 1:
            found = self.schedule.texts_per_image
            raise ValueError(f"schedule.texts_per_image: {found} is read where captions are drawn; leave it out")
        require_equal_shares(self.schedule, self.cluster)
        return self


class VQAConfig(DownstreamConfig):
    """Fine-tune a model that answers questions (arXiv 2201.12086, section 5.3)."""

    role: Literal["vqa"] = Field(description="what the checkpoint becomes")
    data: QuestionData = Field(description="what is trained on; each question needs an answer")


class NLVR2Config(DownstreamConfig):
    """Fine-tune a model that judges sentences about two images (section 5.4)."""

    role: Literal["nlvr2"] = Field(description="what the checkpoint becomes")
    data: SentenceData = Field(description="what is trained on")
    merge_from: NonNegativeInt = Field(
        6, description="text blocks from this one on merge what they see in the two images by weights, not by the mean"
    )


Finetuning = FinetuneConfig | VQAConfig | NLVR2Config

_OF_ROLE: dict[str, type[Finetuning]] = {
    "captioner": FinetuneConfig,
    "filter": FinetuneConfig,
    "vqa": VQAConfig,
    "nlvr2": NLVR2Config,
}


def load_finetuning(path: Path, overrides: Sequence[str] = ()) -> Finetuning:
    """Return the config of a fine-tuning job, of the kind that its role asks for.

    Raises:
        ConfigError: the file lacks a known role, or its other keys are not those of the role.
    """
    return load_by("role", _OF_ROLE, path, overrides)
