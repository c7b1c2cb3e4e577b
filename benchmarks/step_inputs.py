"""What the forms of a training step start from: a model, a batch, queues and token ids, all made up."""

import argparse
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from plain_step import PADDED, Queues
from torch import Tensor

from capfilt.config.momentum import MomentumSettings
from capfilt.config.sizes import MEDConfig, TextConfig, VisionConfig
from capfilt.med.model import MED
from capfilt.med.tokenizer import SPECIAL, Tokenizer
from capfilt.training.data import Batch

SHORTEST = 5  # tokens
WIDTH = 256  # of the contrastive features


def build(options: argparse.Namespace, dropout: float) -> MED:
    """Return a model with random weights large enough that images and texts matter."""
    heads = max(1, options.width // 64)
    model = MED(
        MEDConfig(
            vision=VisionConfig(image_size=options.image, width=options.width, depth=options.depth, heads=heads),
            text=TextConfig(
                vocabulary=options.vocabulary,
                width=options.width,
                depth=options.depth,
                heads=heads,
                mlp_width=4 * options.width,
                dropout=dropout,
            ),
            projection=WIDTH,
        )
    ).initialise(0)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 1.5
    return model.to(options.device).train()


def random_batch(options: argparse.Namespace) -> Batch:
    """Return random images and texts of SHORTEST to twice the mean number of tokens, padded to the longest."""
    generator, longest = torch.Generator().manual_seed(1), min(PADDED, 2 * options.tokens - SHORTEST)
    pixels = torch.randint(0, 256, (options.batch, 3, options.image, options.image), generator=generator)
    lengths = torch.randint(SHORTEST, longest + 1, (options.batch,), generator=generator)
    keep = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.randint(len(SPECIAL), options.vocabulary - 2, keep.shape, generator=generator) * keep
    parts = (pixels.to(torch.uint8), ids, keep, torch.arange(options.batch))
    return Batch(*(part.to(options.device) for part in parts))


def made_up_tokenizer(vocabulary: int) -> Tokenizer:
    """Return a tokenizer of made-up words; [DEC] and [ENC] are the last two ids."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "vocab.txt")
        path.write_text("\n".join([*SPECIAL, *(f"w{number}" for number in range(vocabulary - len(SPECIAL) - 2))]))
        return Tokenizer(path)


def momentum(options: argparse.Namespace) -> MomentumSettings:
    return MomentumSettings(queue=options.queue)


def random_queues(options: argparse.Namespace) -> Queues:
    generator = torch.Generator().manual_seed(2)
    entries = torch.randn(2, WIDTH, options.queue, generator=generator).to(options.device)
    return Queues(*F.normalize(entries, dim=1))


def likeliest(weights: Tensor, number: int) -> Tensor:
    return weights.topk(number, dim=1).indices
