"""What fine-tuning for NLVR2 trains: a model that judges sentences about two images, from a pre-trained MED."""

from functools import partial

from capfilt.config.tasks import NLVR2Config
from capfilt.med.checkpoints import NLVR2Checkpoint, load, save
from capfilt.med.downstream import nlvr2_from
from capfilt.med.fetch import fetch
from capfilt.training.job import Job
from capfilt.training.passes import Passes
from capfilt.training.reasoning import Reasoning
from capfilt.training.statements import StatementBatch, Statements


def prepare(config: NLVR2Config) -> Job[StatementBatch]:
    """Return all that is trained, from the checkpoint it starts with."""
    med, tokenizer = load(fetch(config.checkpoint), config.image_size)
    model = nlvr2_from(med, config.merge_from, config.drop_path, config.seed, config.checkpoint)
    model.config.require_room("data.max_tokens", config.data.max_tokens)
    statements = Statements(config.data, tokenizer, model.config.vision.image_size, config.augmentation)
    data = Passes(statements, config.schedule, config.seed, config.data.workers)
    return Job(Reasoning(model), data, partial(save, NLVR2Checkpoint(model, tokenizer)))
