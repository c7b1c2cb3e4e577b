"""Tiny training sets: squares of two colours on two grounds, with texts in the small models' words."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

from models import small_checkpoint, write_vocabulary
from PIL import Image
from torch import Tensor

from capfilt.config import ImageLimits
from capfilt.config.data import DataSettings
from capfilt.config.model import ModelSettings
from capfilt.config.training import Schedule, TrainingDevice
from capfilt.images import decode, resize
from capfilt.shards import write_tar
from capfilt.training.data import TrainingData, open_data

CPU = TrainingDevice(kind="cpu", threads=1)
COLOURS = {"red": (230, 20, 20), "blue": (20, 20, 230)}
GROUNDS = {"on the grass": (20, 160, 20), "": (240, 240, 240)}


def png(colour: str = "red", ground: str = "", shade: int = 0) -> bytes:
    image = Image.new("RGB", (16, 16), GROUNDS[ground])
    image.paste(tuple(min(255, value + shade) for value in COLOURS[colour]), (4, 4, 12, 12))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def sample(number: int) -> dict[str, bytes]:
    """Return the files of a sample: no two images are the same, and a text tells what its image shows."""
    colour, ground = list(COLOURS)[number % 2], list(GROUNDS)[number // 2 % 2]
    text = f"a {colour} dog {ground}".strip()
    return {"png": png(colour, ground, number % 20), "txt": text.encode()}


def with_texts(number: int, texts: list[str], name: str = "texts") -> dict[str, bytes]:
    return {**sample(number), "json": json.dumps({name: texts}).encode()}


def write_shard(folder: Path, samples: Iterable[dict[str, bytes]], name: str = "00000.tar") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    members = [(f"{i:04d}.{kind}", data) for i, files in enumerate(samples) for kind, data in files.items()]
    write_tar(folder / name, members)
    return folder / name


def pixels(number: int, side: int) -> Tensor:
    """Return the image of a sample as a model sees it, (3, side, side)."""
    return resize(decode(sample(number)["png"], ImageLimits()).pixels, side)


def open_set(folder: Path, batch_size: int = 4, texts: int = 1, seed: int = 0, **changes: object) -> TrainingData:
    """Open the shards of a folder, or other sources, as the training jobs do, for images of 32 pixels."""
    where = {} if "sources" in changes else {"shards": [str(folder)]}
    settings = DataSettings.model_validate({**where, **changes})
    plan = Schedule(steps=1, batch_size=batch_size, texts_per_image=texts)
    return open_data(settings, plan, small_checkpoint(folder.parent / "words"), seed)


def tiny_model(folder: Path, dropout: float = 0.1) -> ModelSettings:
    return ModelSettings(
        image_size=16,
        patch_size=8,
        vision_width=16,
        vision_depth=1,
        vision_heads=2,
        text_width=16,
        text_depth=1,
        text_heads=2,
        positions=40,
        dropout=dropout,
        projection=8,
        vocabulary=str(write_vocabulary(folder / "words")),
    )


def schedule(steps: int, **changes: object) -> Schedule:
    short = Schedule(steps=steps, batch_size=4, learning_rate=3e-3, warmup_steps=2, checkpoint_steps=10)
    return short.model_copy(update=changes)
