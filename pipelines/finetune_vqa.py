"""What fine-tuning for VQA trains: a model that answers questions, from a pre-trained MED."""

from functools import partial

from capfilt.config.tasks import VQAConfig
from capfilt.med.checkpoints import VQACheckpoint, load, save
from capfilt.med.downstream import vqa_from
from capfilt.med.fetch import fetch
from capfilt.training.answering import Answering
from capfilt.training.job import Job
from capfilt.training.passes import Passes
from capfilt.training.questions import QuestionBatch, Questions


def prepare(config: VQAConfig) -> Job[QuestionBatch]:
    """Return all that is trained, from the checkpoint it starts with."""
    med, tokenizer = load(fetch(config.checkpoint), config.image_size)
    model = vqa_from(med, config.drop_path, config.seed, config.checkpoint)
    model.config.require_room("data.max_tokens", config.data.max_tokens)
    questions = Questions(config.data, tokenizer, model.config.vision.image_size, config.augmentation)
    questions.require_answers()
    data = Passes(questions, config.schedule, config.seed, config.data.workers)
    return Job(Answering(model), data, partial(save, VQACheckpoint(model, tokenizer)))
