"""The evaluation job: one task on one checkpoint and one annotated set, and one JSON file with the result."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from capfilt.annotations import read_annotations
from capfilt.captioners.med import MEDCaptioner
from capfilt.config import Device
from capfilt.config.evaluation import EvaluateConfig, EvaluationData, EvaluationDevice
from capfilt.config.tasks import QuestionData, SentenceData, VQASettings
from capfilt.dry_run import DryRun
from capfilt.errors import ConfigError
from capfilt.evaluation.caption_metrics import require_metrics
from capfilt.evaluation.captioning import evaluate_captioning
from capfilt.evaluation.images import ImageSet
from capfilt.evaluation.judgments import Judged, evaluate_filter, read_judgments, with_foreign_texts
from capfilt.evaluation.nlvr2 import evaluate_nlvr2
from capfilt.evaluation.report import Measured, report
from capfilt.evaluation.retrieval import evaluate_retrieval
from capfilt.evaluation.vqa import evaluate_vqa, read_candidates
from capfilt.filters.med import MEDFilter
from capfilt.hardware import require_device
from capfilt.med.auto import resolve_auto
from capfilt.med.checkpoints import load, load_nlvr2, load_vqa, require
from capfilt.med.fetch import fetch
from capfilt.med.gpu import keep_float32
from capfilt.storage import join, local_path, publish
from capfilt.training.passes import Draw
from capfilt.training.questions import Questions
from capfilt.training.statements import Statements

FIRST = Draw(sample=0, seed=0, number=0)
RESULT_BYTES = 100e6  # of the largest results, which hold every caption or answer


def run(config: EvaluateConfig) -> dict[str, object]:
    """Measure what the config asks for, write the result to its output, and return it.

    Raises:
        AnnotationError: an annotation file, or an image that it names, is missing or unusable.
        CheckpointError: the checkpoint is missing, or lacks the part that is measured.
        ConfigError: there is no such device, a package that the task needs is not installed, or output is a folder.
    """
    _require_file(config.output)
    require_device(config.device.kind, "set device.kind: cpu")
    torch.set_num_threads(config.device.threads)
    keep_float32()
    config = config.model_copy(update={"device": resolve_auto(config.device)})
    started = time.monotonic()
    measured = _prepared(config).measure()
    result = report(config, measured, time.monotonic() - started)
    publish(config.output, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    return result


def dry_run(config: EvaluateConfig) -> DryRun:
    """Return what run would do, and what would stop it. Nothing is written."""
    dry = DryRun(f"evaluate, {config.task}")
    with dry.examine():
        _require_file(config.output)
    with dry.examine():
        require_device(config.device.kind, "set device.kind: cpu")
    with dry.examine():
        plain = EvaluationDevice(dtype="float32", linear="plain")
        with torch.device("meta"):
            task = _prepared(config.model_copy(update={"device": plain}))
        dry.tell("model", f"{config.checkpoint} can do it")
        dry.tell("data", f"{task.entries:,} entries of {', '.join(task.files)}")
        task.look()
        dry.tell("data", "the first image was read")
    dry.writes(config.output, RESULT_BYTES)
    return dry


def _require_file(output: str) -> None:
    """Refuse a folder as output before the model has done its work."""
    place = local_path(output)
    if output.endswith("/") or (place is not None and place.is_dir()):
        raise ConfigError(f"output: {output} is a folder; give a file in it, such as {join(output, 'result.json')}")


@dataclass(frozen=True)
class _Task:
    """A task with its model and annotations loaded."""

    measure: Callable[[], Measured]
    look: Callable[[], object]  # reads the first image
    entries: int
    files: Sequence[str]


def _on_images(images: ImageSet, files: Sequence[str], measure: Callable[[], Measured]) -> _Task:
    return _Task(measure, images.look, len(images.entries), files)


def _retrieval(config: EvaluateConfig, data: EvaluationData) -> _Task:
    entries = read_annotations(data)
    judge = _filter(config)
    images, files = ImageSet(entries, data, config, judge.image_size), [data.annotations]
    return _on_images(images, files, lambda: Measured(evaluate_retrieval(judge, images), files, images.left_out))


def _captioning(config: EvaluateConfig, data: EvaluationData) -> _Task:
    require_metrics()
    entries = read_annotations(data)
    checkpoint = require(load(fetch(config.checkpoint), config.image_size), "captioner", config.checkpoint)
    captioner = MEDCaptioner(config.checkpoint, checkpoint, config.captioning, config.device)
    images, files = ImageSet(entries, data, config, captioner.image_size), [data.annotations]

    def measure() -> Measured:
        figures, captions = evaluate_captioning(captioner, images)
        return Measured(figures, files, images.left_out, captions)

    return _on_images(images, files, measure)


def _judgments(config: EvaluateConfig, data: EvaluationData) -> _Task:
    return _agreement(config, data, read_judgments(data, config.verdicts), [])


def _foreign_texts(config: EvaluateConfig, data: EvaluationData) -> _Task:
    judged = with_foreign_texts(read_annotations(data), config.verdicts)
    return _agreement(config, data, judged, [*filter(None, [config.verdicts.foreign])])


def _agreement(config: EvaluateConfig, data: EvaluationData, judged: Judged, others: Sequence[str]) -> _Task:
    judge = _filter(config)
    images = ImageSet(judged.entries, data, config, judge.image_size)
    files = [data.annotations, *others]

    def measure() -> Measured:
        return Measured(evaluate_filter(judge, images, judged.verdicts), files, images.left_out)

    return _on_images(images, files, measure)


def _vqa(config: EvaluateConfig, data: QuestionData, settings: VQASettings) -> _Task:
    model, tokenizer = load_vqa(fetch(config.checkpoint), config.image_size)
    model.config.require_room("questions.max_tokens", data.max_tokens)
    if settings.method == "generate":
        model.config.require_room("vqa.max_length", settings.max_length)
    candidates = read_candidates(settings)
    questions = Questions(data, tokenizer, model.config.vision.image_size)
    files = [name for file in data.files for name in (file.questions, file.annotations) if name]
    if settings.method == "rank":  # generate reads no list, so it may be missing
        files += filter(None, [settings.candidates])

    def measure() -> Measured:
        with _autocast(config.device):
            figures, answers = evaluate_vqa(model.to(config.device.kind), questions, candidates, settings)
        return Measured(figures, files, written=answers)

    return _Task(measure, lambda: questions[FIRST], len(questions), files)


def _nlvr2(config: EvaluateConfig, data: SentenceData) -> _Task:
    model, tokenizer = load_nlvr2(fetch(config.checkpoint), config.image_size)
    model.config.require_room("sentences.max_tokens", data.max_tokens)
    sentences = Statements(data, tokenizer, model.config.vision.image_size)
    files = [file.annotations for file in data.files]

    def measure() -> Measured:
        with _autocast(config.device):
            return Measured(evaluate_nlvr2(model.to(config.device.kind), sentences, config.nlvr2), files)

    return _Task(measure, lambda: sentences[FIRST], len(sentences), files)


def _filter(config: EvaluateConfig) -> MEDFilter:
    checkpoint = require(load(fetch(config.checkpoint), config.image_size), "filter", config.checkpoint)
    return MEDFilter(config.checkpoint, checkpoint, config.scoring, config.device)


def _autocast(device: Device) -> AbstractContextManager[None]:
    return torch.autocast(device.kind, torch.bfloat16, enabled=device.dtype == "bfloat16")


def _prepared(config: EvaluateConfig) -> _Task:
    """Return the task with its model and annotations; the config has checked that it has its sections."""
    if config.task == "vqa" and config.questions and config.vqa:
        return _vqa(config, config.questions, config.vqa)
    if config.task == "nlvr2" and config.sentences:
        return _nlvr2(config, config.sentences)
    if config.data is None:
        raise ConfigError(f"task: {config.task} needs the section data")
    return _ON_CAPTIONS[config.task](config, config.data)


_ON_CAPTIONS: Mapping[str, Callable[[EvaluateConfig, EvaluationData], _Task]] = {
    "retrieval": _retrieval,
    "video": _retrieval,
    "captioning": _captioning,
    "judgments": _judgments,
    "foreign_texts": _foreign_texts,
}
