"""The evaluation job: one task on one checkpoint and one annotated set, and one JSON file with the result."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch

from capfilt.captioners.med import MEDCaptioner
from capfilt.config import Device
from capfilt.config.evaluation import EvaluateConfig, EvaluationData
from capfilt.config.tasks import QuestionData, SentenceData, VQASettings
from capfilt.errors import ConfigError
from capfilt.evaluation.annotations import read_annotations
from capfilt.evaluation.captioning import evaluate_captioning
from capfilt.evaluation.images import ImageSet
from capfilt.evaluation.judgments import Judged, evaluate_filter, read_judgments, with_foreign_texts
from capfilt.evaluation.nlvr2 import evaluate_nlvr2
from capfilt.evaluation.report import Measured, report
from capfilt.evaluation.retrieval import evaluate_retrieval
from capfilt.evaluation.vqa import evaluate_vqa
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import load, load_nlvr2, load_vqa, require
from capfilt.med.fetch import fetch
from capfilt.med.inference import settle
from capfilt.storage import publish
from capfilt.training.entries import require_room
from capfilt.training.questions import Questions
from capfilt.training.statements import Statements


def run(config: EvaluateConfig) -> dict[str, object]:
    """Measure what the config asks for, write the result to its output, and return it.

    Raises:
        AnnotationError: an annotation file, or an image that it names, is missing or cannot be used.
        CheckpointError: the checkpoint is missing, or lacks the part that is measured.
        ConfigError: the device, or a package that the task needs, is not there.
    """
    if config.device.kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device.kind: cuda, but torch sees no GPU here; set device.kind: cpu")
    torch.set_num_threads(config.device.threads)
    config = config.model_copy(update={"device": settle(config.device)})
    started = time.monotonic()
    measured = _measured(config)
    result = report(config, measured, time.monotonic() - started)
    publish(config.output, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    return result


def _retrieval(config: EvaluateConfig, data: EvaluationData) -> Measured:
    entries = read_annotations(data)
    judge = _filter(config)
    images = ImageSet(entries, data, config, judge.image_size)
    return Measured(evaluate_retrieval(judge, images), [data.annotations], images.left_out)


def _captioning(config: EvaluateConfig, data: EvaluationData) -> Measured:
    entries = read_annotations(data)
    checkpoint = require(load(fetch(config.checkpoint), config.image_size), "captioner", config.checkpoint)
    captioner = MEDCaptioner(config.checkpoint, checkpoint, config.captioning, config.device)
    images = ImageSet(entries, data, config, captioner.image_size)
    figures, captions = evaluate_captioning(captioner, images)
    return Measured(figures, [data.annotations], images.left_out, captions)


def _judgments(config: EvaluateConfig, data: EvaluationData) -> Measured:
    return _agreement(config, data, read_judgments(data, config.verdicts))


def _foreign_texts(config: EvaluateConfig, data: EvaluationData) -> Measured:
    return _agreement(config, data, with_foreign_texts(read_annotations(data), config.verdicts))


def _agreement(config: EvaluateConfig, data: EvaluationData, judged: Judged) -> Measured:
    judge = _filter(config)
    images = ImageSet(judged.entries, data, config, judge.image_size)
    figures = evaluate_filter(judge, images, judged.verdicts)
    files = [data.annotations, *filter(None, [config.verdicts.foreign])]
    return Measured(figures, files, images.left_out)


def _vqa(config: EvaluateConfig, data: QuestionData, settings: VQASettings) -> Measured:
    checkpoint = load_vqa(fetch(config.checkpoint), config.image_size)
    require_room("questions.max_tokens", data.max_tokens, checkpoint.model.config)
    if settings.method == "generate":
        require_room("vqa.max_length", settings.max_length, checkpoint.model.config)
    questions = Questions(data, checkpoint.tokens, checkpoint.model.config.vision.image_size)
    model = checkpoint.model.to(config.device.kind)
    with _autocast(config.device):
        figures = evaluate_vqa(model, questions, settings)
    files = [name for file in data.files for name in (file.questions, file.annotations) if name]
    return Measured(figures, [*files, *filter(None, [settings.candidates])], written=figures.pop("answers"))


def _nlvr2(config: EvaluateConfig, data: SentenceData) -> Measured:
    checkpoint = load_nlvr2(fetch(config.checkpoint), config.image_size)
    require_room("sentences.max_tokens", data.max_tokens, checkpoint.model.config)
    sentences = Statements(data, checkpoint.tokens, checkpoint.model.config.vision.image_size)
    model = checkpoint.model.to(config.device.kind)
    with _autocast(config.device):
        figures = evaluate_nlvr2(model, sentences, config.nlvr2)
    return Measured(figures, [file.annotations for file in data.files])


def _filter(config: EvaluateConfig) -> MEDFilter:
    checkpoint = require(load(fetch(config.checkpoint), config.image_size), "filter", config.checkpoint)
    return MEDFilter(config.checkpoint, checkpoint, config.scoring, config.device)


def _autocast(device: Device) -> AbstractContextManager[None]:
    return torch.autocast(device.kind, torch.bfloat16, enabled=device.dtype == "bfloat16")


def _measured(config: EvaluateConfig) -> Measured:
    """Take the task's own data to it; the config has seen to it that they are there."""
    if config.task == "vqa" and config.questions and config.vqa:
        return _vqa(config, config.questions, config.vqa)
    if config.task == "nlvr2" and config.sentences:
        return _nlvr2(config, config.sentences)
    if config.data is None:
        raise ConfigError(f"task: {config.task} needs the section data")
    return ON_CAPTIONS[config.task](config, config.data)


ON_CAPTIONS: Mapping[str, Callable[[EvaluateConfig, EvaluationData], Measured]] = {
    "retrieval": _retrieval,
    "video": _retrieval,
    "captioning": _captioning,
    "judgments": _judgments,
    "foreign_texts": _foreign_texts,
}
