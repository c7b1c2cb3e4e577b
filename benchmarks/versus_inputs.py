"""What capfilt and transformers are compared on: a model's weights in both layouts, photograph-like JPEGs, texts.

Weights are random but lively: drawn so that attention looks somewhere and what is read from image and words reaches
the outputs, as in a trained model. Under usual starting weights all images and texts get nearly the same score, and a
comparison would not notice an engine that drops the image.

Shapes: N images, S side of the model's input, D width, V vocabulary.
"""

import io
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from capfilt.config import ImageLimits
from capfilt.config.sizes import MEDConfig, TextConfig, VisionConfig
from capfilt.images import decode, resize
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.model import MED
from capfilt.med.tokenizer import SPECIAL, Tokenizer
from capfilt.med.transformers_layout import save_transformers
from capfilt.med.vision import normalise
from capfilt.med.weights import CONFIG, VOCABULARY
from capfilt.shards import write_tar

GAIN, RESIDUAL_GAIN = 1.5, 0.4  # deviation of a weight times the root of its inputs
RESIDUAL = ("_attn.out", "mlp.down", "attn.proj", "mlp.fc2")  # write to the residual
LOGITS = 5.0  # deviation of the language head's logits; the nucleus then holds some tens of words, as a trained one's
NEVER = -100.0  # bias of the special tokens: no caption ends early, and every caption is words that read back alike
TEXTS = 11  # for each image
SHORTEST, LONGEST = 5, 20  # tokens of a text, the first and the last included
PHOTOGRAPH = (640, 480)
APART = 1e-3  # what one number of the filter's vision tower differs by, as fine-tuned ones do: equal ones are shared
PROMPT = ("a", "picture", "of")


class Folders(NamedTuple):
    """Where one model's weights lie, in transformers' layouts, which both sides read."""

    captioner: Path
    filter: Path


class Inputs(NamedTuple):
    """N images with their texts."""

    jpegs: list[bytes]
    pixels: Tensor  # uint8, (N, 3, S, S), as capfilt decodes and resizes
    texts: list[list[str]]  # TEXTS for each image

    def first(self, images: int) -> "Inputs":
        """Return the first images alone."""
        return Inputs(self.jpegs[:images], self.pixels[:images], self.texts[:images])


def sizes(model: str) -> MEDConfig:
    """Return ViT-B/16 or ViT-L/16 at 384 with BERT-base, or something tiny for tests."""
    if model == "tiny":
        vision = VisionConfig(image_size=32, patch_size=8, width=64, depth=2, heads=2)
        text = TextConfig(vocabulary=204, width=64, depth=2, heads=2, mlp_width=128, positions=40)
        return MEDConfig(vision=vision, text=text, projection=16)
    large = {"width": 1024, "depth": 24, "heads": 16} if model == "large" else {}
    return MEDConfig(vision=VisionConfig(**large))


def write_models(config: MEDConfig, folder: Path, inputs: Inputs) -> Folders:
    """Write the two checkpoints, unless they lie there already; P(match) of the inputs is then 0.5 in the median."""
    folders = Folders(folder / "captioner", folder / "filter")
    if not all((path / CONFIG).exists() for path in folders):
        tokenizer = write_tokenizer(config, folder)
        model = centre(draw(MED(config), tokenizer).eval(), tokenizer, inputs.first(2))
        for layout, path in zip(("transformers-captioning", "transformers-retrieval"), folders, strict=True):
            save_transformers(Checkpoint(model, tokenizer), path, layout, "the drawn model")
            model.vision.vit.cls_token.data[0, 0, 0] += APART
    return folders


def write_tokenizer(config: MEDConfig, folder: Path) -> Tokenizer:
    """Return a tokenizer of made-up words, each of them one token."""
    folder.mkdir(parents=True, exist_ok=True)
    known = [*SPECIAL, *PROMPT]
    made_up = [f"w{number}" for number in range(config.text.vocabulary - len(known) - 2)]
    (folder / VOCABULARY).write_text("\n".join([*known, *made_up]) + "\n")
    return Tokenizer(folder / VOCABULARY)


def draw(model: MED, tokenizer: Tokenizer) -> MED:
    """Draw lively weights, and biases other than 0, so that a lost one shows."""
    generator = torch.Generator().manual_seed(0)

    def fill(tensor: Tensor, deviation: float) -> None:
        tensor.data.normal_(0.0, deviation, generator=generator)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            gain = RESIDUAL_GAIN if name.endswith(RESIDUAL) else GAIN
            fill(module.weight, gain / module.weight[0].numel() ** 0.5)
        elif isinstance(module, nn.Embedding):
            fill(module.weight, module.weight.shape[1] ** -0.5)
        if isinstance(module, nn.Linear | nn.LayerNorm):
            fill(module.bias, 0.05)
    fill(model.vision.vit.pos_embed, 0.5)
    fill(model.vision.vit.cls_token, 0.5)
    model.text.head.norm.weight.data.fill_(LOGITS)
    special = [*(tokenizer.vocabulary.index(token) for token in SPECIAL), tokenizer.dec, tokenizer.enc]
    model.text.head.bias.data[special] = NEVER
    return model


@torch.inference_mode()
def centre(model: MED, tokenizer: Tokenizer, inputs: Inputs) -> MED:
    """Shift the ITM head so that half of the inputs' texts match: decisions then lie where rounding can turn them."""
    rows = [tokenizer.encode(text, tokenizer.enc, 35) for texts in inputs.texts for text in texts]
    image = model.project_image(model.encode_image(normalise(inputs.pixels)))
    logits = model.match(*tokenizer.batch(rows), image)  # (R, 2)
    model.itm_head.bias.data[1] -= (logits[:, 1] - logits[:, 0]).quantile(0.5)  # between two texts, so on none
    return model


def make_inputs(config: MEDConfig, images: int) -> Inputs:
    """Return made-up photographs, and texts of SHORTEST to LONGEST tokens."""
    rng, chance = np.random.default_rng(0), random.Random(0)
    jpegs = [photograph(rng) for _ in range(images)]
    pixels = [resize(decode(jpeg, ImageLimits()).pixels, config.vision.image_size) for jpeg in jpegs]
    words = config.text.vocabulary - len(SPECIAL) - len(PROMPT) - 2

    def text() -> str:
        return " ".join(f"w{chance.randrange(words)}" for _ in range(chance.randint(SHORTEST, LONGEST) - 2))

    return Inputs(jpegs, torch.stack(pixels), [[text() for _ in range(TEXTS)] for _ in jpegs])


def photograph(rng: np.random.Generator) -> bytes:
    """Return a JPEG with large shapes and fine grain, about as many bytes as a photograph of its size."""
    shapes = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
        PHOTOGRAPH, Image.Resampling.BICUBIC
    )
    grain = rng.normal(0.0, 8.0, (*PHOTOGRAPH[::-1], 3))
    pixels = (np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_shard(inputs: Inputs, path: Path) -> Path:
    """Write the images, each with its first text, as a tar shard."""
    members = []
    for number, (jpeg, texts) in enumerate(zip(inputs.jpegs, inputs.texts, strict=True)):
        members += [(f"{number:06d}.jpg", jpeg), (f"{number:06d}.txt", texts[0].encode())]
    write_tar(path, members)
    return path
