"""The pre-training job: MED from random weights on clean, human and web shards."""

from pathlib import Path

from capfilt.config.training import ModelSettings, PretrainConfig
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
from capfilt.med.model import MED
from capfilt.med.tokens import Tokens
from capfilt.training.loop import TrainingRun, train
from capfilt.training.objectives import Pretraining


def run(config: PretrainConfig) -> Path:
    """Pre-train a model, or go on where it stopped, and return its checkpoint folder."""
    folder = TrainingRun(Path(config.output), config)
    if not folder.finished:
        checkpoint = start(config.model, config.seed)
        objective = Pretraining(checkpoint.model, checkpoint.tokens, config.itm_warmup)
        train(folder, checkpoint, objective, config.data, config.schedule, config.device, config.seed)
    return folder.checkpoint


def start(settings: ModelSettings, seed: int) -> Checkpoint:
    """Return a model of the given sizes with random weights."""
    tokens = Tokens(Path(settings.vocabulary))
    sizes = MEDConfig(
        vision=VisionConfig(
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            stem=settings.stem,
            width=settings.vision_width,
            depth=settings.vision_depth,
            heads=settings.vision_heads,
        ),
        text=TextConfig(
            vocabulary=len(tokens),
            width=settings.text_width,
            depth=settings.text_depth,
            heads=settings.text_heads,
            mlp_width=4 * settings.text_width,
            positions=settings.positions,
            dropout=settings.dropout,
        ),
        projection=settings.projection,
    )
    return Checkpoint(MED(sizes).initialise(seed), tokens)
