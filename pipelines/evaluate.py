"""The evaluation job: one task on one checkpoint and one annotated set, and one JSON file with the result."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from capfilt.captioners.med import MEDCaptioner
from capfilt.config.evaluation import EvaluateConfig, Task
from capfilt.evaluation.annotations import read_annotations
from capfilt.evaluation.captioning import evaluate_captioning
from capfilt.evaluation.images import ImageSet
from capfilt.evaluation.judgments import Judged, evaluate_filter, read_judgments, with_foreign_texts
from capfilt.evaluation.report import Measured, report
from capfilt.evaluation.retrieval import evaluate_retrieval
from capfilt.filters.med import MEDFilter
from capfilt.med.build import check_device
from capfilt.med.checkpoints import load, require
from capfilt.storage import publish


def run(config: EvaluateConfig) -> dict[str, object]:
    """Measure what the config asks for, write the result to its output, and return it.

    Raises:
        AnnotationError: an annotation file, or an image that it names, is missing or cannot be used.
        CheckpointError: the checkpoint is missing, or lacks the part that is measured.
        ConfigError: the device, or a package that the task needs, is not there.
    """
    check_device(config.device)
    torch.set_num_threads(config.device.threads)
    started = time.monotonic()
    measured = TASKS[config.task](config)
    result = report(config, measured, time.monotonic() - started)
    publish(config.output, (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode())
    return result


def _retrieval(config: EvaluateConfig) -> Measured:
    entries = read_annotations(config.data)
    judge = _filter(config)
    images = ImageSet(entries, config, judge.image_size)
    return Measured(evaluate_retrieval(judge, images), images.left_out)


def _captioning(config: EvaluateConfig) -> Measured:
    entries = read_annotations(config.data)
    checkpoint = require(load(Path(config.checkpoint), config.image_size), "captioner", config.checkpoint)
    captioner = MEDCaptioner(config.checkpoint, checkpoint, config.captioning, config.device)
    images = ImageSet(entries, config, captioner.image_size)
    figures, captions = evaluate_captioning(captioner, images)
    return Measured(figures, images.left_out, captions)


def _judgments(config: EvaluateConfig) -> Measured:
    return _agreement(config, read_judgments(config))


def _foreign_texts(config: EvaluateConfig) -> Measured:
    files = (config.verdicts.foreign,) if config.verdicts.foreign else ()
    return _agreement(config, with_foreign_texts(read_annotations(config.data), config), files)


def _agreement(config: EvaluateConfig, judged: Judged, files: tuple[str, ...] = ()) -> Measured:
    judge = _filter(config)
    images = ImageSet(judged.entries, config, judge.image_size)
    return Measured(evaluate_filter(judge, images, judged.verdicts), images.left_out, files=files)


def _filter(config: EvaluateConfig) -> MEDFilter:
    checkpoint = require(load(Path(config.checkpoint), config.image_size), "filter", config.checkpoint)
    return MEDFilter(config.checkpoint, checkpoint, config.scoring, config.device)


TASKS: Mapping[Task, Callable[[EvaluateConfig], Measured]] = {
    "retrieval": _retrieval,
    "video": _retrieval,
    "captioning": _captioning,
    "judgments": _judgments,
    "foreign_texts": _foreign_texts,
}
