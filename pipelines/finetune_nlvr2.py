"""The fine-tuning job for NLVR2: a model that judges sentences about two images, from a pre-trained MED."""

from functools import partial

from capfilt.config.tasks import NLVR2Config
from capfilt.dry_run import DryRun
from capfilt.med.checkpoints import NLVR2Checkpoint, load, save
from capfilt.med.fetch import fetch
from capfilt.med.successors import nlvr2_from
from capfilt.training.job import Job
from capfilt.training.passes import Passes
from capfilt.training.reasoning import Reasoning
from capfilt.training.statements import StatementBatch, Statements
from pipelines.training import run_training
from pipelines.training_dry_run import dry_run_training


def run(config: NLVR2Config) -> str:
    """Fine-tune a model, or go on where it stopped, and return its checkpoint folder."""
    return run_training(config, prepare)


def prepare(config: NLVR2Config, shards: str | None = None) -> Job[StatementBatch]:
    """Return all that is trained, from the checkpoint it starts with; there are no shards."""
    med, tokens = load(fetch(config.checkpoint), config.image_size)
    model = nlvr2_from(med, config.merge_from, config.drop_path, config.seed, config.checkpoint)
    model.config.require_room("data.max_tokens", config.data.max_tokens)
    statements = Statements(config.data, tokens, model.config.vision.image_size, config.augmentation)
    data = Passes(statements, config.schedule, config.seed, config.data.workers)
    return Job(Reasoning(model), data, partial(save, NLVR2Checkpoint(model, tokens)))


def dry_run(config: NLVR2Config) -> DryRun:
    """Return what run would do, and what keeps it from that. Nothing is written."""
    return dry_run_training("finetune, nlvr2", config, prepare)
