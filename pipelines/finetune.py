"""The fine-tuning job: a captioner or a filter, each a checkpoint of its own, or a model for VQA or NLVR2."""

from functools import partial
from pathlib import Path
from typing import Any

from capfilt.config.tasks import Finetuning, NLVR2Config, VQAConfig
from capfilt.config.training import FinetuneConfig
from capfilt.display import counted
from capfilt.dry_run import DryRun
from capfilt.errors import CheckpointError, ConfigError
from capfilt.med.checkpoints import Checkpoint, NLVR2Checkpoint, VQACheckpoint, load, require, save
from capfilt.med.downstream import nlvr2_from, vqa_from
from capfilt.med.fetch import fetch
from capfilt.med.model import MED
from capfilt.med.momentum import MOMENTUM, Momentum, load_momentum, resume_published
from capfilt.med.weights import load_tensors
from capfilt.runs.stop import Stop
from capfilt.training.answering import Answering
from capfilt.training.data import Batch, open_data
from capfilt.training.job import Job
from capfilt.training.objectives import Captioning, Filtering, Objective
from capfilt.training.passes import Passes
from capfilt.training.questions import QuestionBatch, Questions
from capfilt.training.reasoning import Reasoning
from capfilt.training.statements import StatementBatch, Statements
from pipelines.training import run_training
from pipelines.training_dry_run import dry_run_training


def run(config: Finetuning, stop: Stop | None = None) -> str:
    """Fine-tune a model, or resume, and return its checkpoint folder; stop as in run_training."""
    return run_training(config, prepare, stop)


def prepare(config: Finetuning, shards: str | None) -> Job[Any]:
    """Return the objective and data of a job; shards is the file of open_data."""
    match config:
        case VQAConfig():
            return _prepare_vqa(config)
        case NLVR2Config():
            return _prepare_nlvr2(config)
        case _:
            return _prepare_role(config, shards)


def dry_run(config: Finetuning) -> DryRun:
    """Return what run would do, and what would stop it. Nothing is written."""
    return dry_run_training(f"finetune, {config.role}", config, prepare)


def _prepare_role(config: FinetuneConfig, shards: str | None) -> Job[Batch]:
    start = load(fetch(config.checkpoint), config.image_size)
    drop_path = 0.0 if config.vision_from else config.drop_path
    checkpoint = only(config.role, require(start, config.role, config.checkpoint), drop_path)
    if config.vision_from:
        _take_vision(checkpoint.model, config.vision_from)
    return Job(
        objective(config, checkpoint),
        open_data(config.data, config.schedule, checkpoint, config.seed, shards),
        partial(save, checkpoint),
    )


def _prepare_vqa(config: VQAConfig) -> Job[QuestionBatch]:
    med, tokenizer = load(fetch(config.checkpoint), config.image_size)
    model = vqa_from(med, config.drop_path, config.seed, config.checkpoint)
    model.config.require_room("data.max_tokens", config.data.max_tokens)
    questions = Questions(config.data, tokenizer, model.config.vision.image_size, config.augmentation)
    questions.require_answers()
    data = Passes(questions, config.schedule, config.seed, config.data.workers)
    return Job(Answering(model), data, partial(save, VQACheckpoint(model, tokenizer)))


def _prepare_nlvr2(config: NLVR2Config) -> Job[StatementBatch]:
    med, tokenizer = load(fetch(config.checkpoint), config.image_size)
    if config.merge_from > (depth := med.config.text.depth):
        raise ConfigError(
            f"merge_from: {config.merge_from}, but the text stack has {counted(depth, 'block')}; "
            f"set merge_from: {depth // 2}, or {depth} to take the mean in every block"
        )
    model = nlvr2_from(med, config.merge_from, config.drop_path, config.seed, config.checkpoint)
    model.config.require_room("data.max_tokens", config.data.max_tokens)
    statements = Statements(config.data, tokenizer, model.config.vision.image_size, config.augmentation)
    data = Passes(statements, config.schedule, config.seed, config.data.workers)
    return Job(Reasoning(model), data, partial(save, NLVR2Checkpoint(model, tokenizer)))


def objective(config: FinetuneConfig, checkpoint: Checkpoint) -> Objective[Batch]:
    """Return the objective of a role."""
    if config.role == "captioner":
        captioning = Captioning(*checkpoint, config.prompt)
        _require_room(
            len(captioning.prompt) - 1 + config.data.max_tokens, checkpoint, config
        )  # prompt and text share the first
        return captioning
    filtering = Filtering(*checkpoint, config.momentum, config.seed)
    if filtering.momentum is not None:
        _inherit(filtering.momentum, fetch(config.checkpoint))
        if config.vision_from:  # the start's copy is of another tower; a frozen tower is its own copy
            filtering.momentum.copy.vision.load_state_dict(checkpoint.model.vision.state_dict())
    return filtering


def _require_room(tokens: int, checkpoint: Checkpoint, config: FinetuneConfig) -> None:
    positions = checkpoint.model.config.text.positions
    if tokens > positions:
        raise ConfigError(
            f"data.max_tokens: {config.data.max_tokens}, which with the prompt makes {tokens} tokens; "
            f"the model takes {positions}; lower it"
        )


def _take_vision(model: MED, place: str) -> None:
    """Give a model the vision tower of a checkpoint, frozen.

    Raises:
        CheckpointError: the checkpoint is missing, or its tower has another kind or size.
    """
    other = load(fetch(place), model.config.vision.image_size).model
    if not model.config.vision.alike(other.config.vision):
        raise CheckpointError(f"{place}: its vision tower has other sizes than that of checkpoint; take another one")
    model.vision.load_state_dict(other.vision.state_dict())
    model.vision.requires_grad_(False)


def _inherit(momentum: Momentum, start: Path) -> None:
    """Start with the copies and queues of the starting checkpoint, if it is a pre-training one or an original file.

    The pointer comes with the queues, so that the oldest entries are replaced first; the original's retrieval code
    begins at column 0 instead, since its pointer has another name than in pre-training. The image numbers of a
    retrieval file are left out: they count another training set, and would make different images equal.
    """
    if (start / MOMENTUM).exists():
        load_momentum(momentum, start / MOMENTUM)
    elif start.is_file() and "image_queue" in (state := load_tensors(start)):
        resume_published(momentum, {name: tensor for name, tensor in state.items() if name != "idx_queue"}, str(start))


def only(role: str, checkpoint: Checkpoint, drop_path: float | None = None) -> Checkpoint:
    """Return a model with the checkpoint's weights and the parts of one role; drop_path: None keeps its own."""
    sizes = checkpoint.model.config
    vision = sizes.vision if drop_path is None else sizes.vision.model_copy(update={"drop_path": drop_path})
    parts = {"encoder": role == "filter", "decoder": role == "captioner"}
    model = MED(sizes.model_copy(update={"vision": vision, **parts}))
    weights = checkpoint.model.state_dict()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return Checkpoint(model, checkpoint.tokenizer)
