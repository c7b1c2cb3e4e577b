"""The pre-training job: MED on clean, human and web shards."""

from pathlib import Path

from capfilt.config.initial import InitialWeights
from capfilt.config.training import PretrainConfig
from capfilt.med.initial import start
from capfilt.training.loop import TrainingRun, train
from capfilt.training.objectives import Pretraining


def run(config: PretrainConfig) -> Path:
    """Pre-train a model, or go on where it stopped, and return its checkpoint folder."""
    folder = TrainingRun(Path(config.output), config)
    if not folder.finished:
        checkpoint = start(config.model, InitialWeights(), config.seed)
        objective = Pretraining(checkpoint.model, checkpoint.tokens, config.itm_warmup)
        train(folder, checkpoint, objective, config.data, config.schedule, config.device, config.seed)
    return folder.checkpoint
