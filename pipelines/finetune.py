"""The fine-tuning job: a captioner or a filter, each a checkpoint of its own, from the same start."""

from pathlib import Path

from capfilt.config.training import FinetuneConfig
from capfilt.med.checkpoints import Checkpoint, load, require
from capfilt.med.model import MED
from capfilt.training.data import Batch
from capfilt.training.loop import TrainingRun, train
from capfilt.training.objectives import Captioning, Filtering, Objective


def run(config: FinetuneConfig) -> Path:
    """Fine-tune a model, or go on where it stopped, and return its checkpoint folder."""
    folder = TrainingRun(Path(config.output), config)
    if not folder.finished:
        start = load(Path(config.checkpoint), config.image_size)
        checkpoint = only(config.role, require(start, config.role, config.checkpoint))
        objective = _objective(config, checkpoint)
        train(folder, checkpoint, objective, config.data, config.schedule, config.device, config.seed)
    return folder.checkpoint


def _objective(config: FinetuneConfig, checkpoint: Checkpoint) -> Objective[Batch]:
    if config.role == "captioner":
        return Captioning(checkpoint.model, checkpoint.tokens, config.prompt)
    return Filtering(checkpoint.model, checkpoint.tokens)


def only(role: str, checkpoint: Checkpoint) -> Checkpoint:
    """Return a model with the parts of one role, at the checkpoint's weights."""
    sizes = checkpoint.model.config.model_copy(update={"encoder": role == "filter", "decoder": role == "captioner"})
    model = MED(sizes)
    weights = checkpoint.model.state_dict()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return Checkpoint(model, checkpoint.tokens)
