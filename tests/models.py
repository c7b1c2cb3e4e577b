"""Small MED models with random weights whose outputs depend on image and text."""

import os
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from capfilt.config import Sampling
from capfilt.config.model import ModelSettings
from capfilt.config.sizes import MEDConfig, TextConfig, VisionConfig
from capfilt.med.attention import KeysValues
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.decoding import Generated, TextDecoder
from capfilt.med.generation import CaptionGenerator, generate
from capfilt.med.model import MED
from capfilt.med.tokenizer import SPECIAL, Tokenizer

WORDS = ("a", "picture", "of", "red", "blue", "dog", "cat", "on", "the", "grass", "two", "##s", *"bcdefgh")
RESIDUAL = ("out.weight", "down.weight", "attn.proj.weight", "fc2.weight")


def write_vocabulary(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path, partial = folder / "vocab.txt", folder / f"{os.getpid()}.partial"
    partial.write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
    return partial.replace(path)  # whole at once: ranks write it side by side


def start_settings(folder: Path) -> ModelSettings:
    """Settings of a small model that is to start from a ViT and a BERT of its size."""
    torch.set_num_threads(1)
    return ModelSettings(
        image_size=32,
        patch_size=8,
        vision_width=48,
        vision_depth=3,
        vision_heads=3,
        text_width=64,
        text_depth=2,
        text_heads=4,
        positions=30,
        dropout=0.0,
        projection=16,
        vocabulary=str(write_vocabulary(folder)),
    )


def small_config(vocabulary: int, encoder: bool = True, decoder: bool = True) -> MEDConfig:
    return MEDConfig(
        vision=VisionConfig(image_size=32, patch_size=8, width=32, depth=2, heads=2),
        text=TextConfig(vocabulary=vocabulary, width=32, depth=2, heads=2, mlp_width=64, positions=40, dropout=0.0),
        projection=16,
        encoder=encoder,
        decoder=decoder,
    )


def small_checkpoint(folder: Path, seed: int = 0, encoder: bool = True, decoder: bool = True) -> Checkpoint:
    tokenizer = Tokenizer(write_vocabulary(folder))
    return Checkpoint(MED(small_config(len(tokenizer), encoder, decoder)).initialise(seed).eval(), tokenizer)


def lively_checkpoint(folder: Path, seed: int = 0, encoder: bool = True, decoder: bool = True) -> Checkpoint:
    """A small model whose scores and captions differ clearly between images and between texts, as a trained one's do.

    The weights are twice as large, and halved again where they write to the residual.
    """
    checkpoint = small_checkpoint(folder, seed, encoder, decoder)
    for name, parameter in checkpoint.model.named_parameters():
        if parameter.ndim >= 2 and not name.endswith(RESIDUAL):
            parameter.data *= 2
    return checkpoint


@torch.inference_mode()
def sample(
    model: TextDecoder,
    image: list[KeysValues],
    prompt: list[int],
    end: int,
    settings: Sampling,
    noise: Tensor | None = None,
) -> Generated:
    """Write captions as the captioner does, one step after the other; arguments as of CaptionGenerator, begin."""
    generator = CaptionGenerator(model, prompt, end, settings)
    state = generator.begin(image, noise)
    return generate(generator, state, partial(generator.go_on, state))
