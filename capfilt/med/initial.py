"""The weights that pre-training starts from."""

from pathlib import Path

from capfilt.config.initial import InitialWeights
from capfilt.config.training import ModelSettings
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
from capfilt.med.model import MED
from capfilt.med.tokens import Tokens


def start(settings: ModelSettings, initial: InitialWeights, seed: int) -> Checkpoint:
    """Return a model of the given sizes, with the given weights and random ones where none are given."""
    tokens = Tokens(Path(settings.vocabulary))
    model = MED(_sizes(settings, len(tokens))).initialise(seed)
    return Checkpoint(model, tokens)


def _sizes(settings: ModelSettings, vocabulary: int) -> MEDConfig:
    return MEDConfig(
        vision=VisionConfig(
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            stem=settings.stem,
            width=settings.vision_width,
            depth=settings.vision_depth,
            heads=settings.vision_heads,
        ),
        text=TextConfig(
            vocabulary=vocabulary,
            width=settings.text_width,
            depth=settings.text_depth,
            heads=settings.text_heads,
            mlp_width=4 * settings.text_width,
            positions=settings.positions,
            dropout=settings.dropout,
        ),
        projection=settings.projection,
    )
