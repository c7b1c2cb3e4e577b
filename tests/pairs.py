"""Tiny training sets: squares of two colours on two grounds, with texts in the small models' words."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

from models import write_vocabulary
from PIL import Image

from capfilt.config.data import DataSettings
from capfilt.config.training import ModelSettings, Schedule, TrainingDevice
from capfilt.med.tokens import Tokens
from capfilt.shards import write_tar
from capfilt.training.data import Pairs

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


def open_pairs(folder: Path, texts_per_image: int = 1, **changes: object) -> Pairs:
    """Open the shards of a folder as the training jobs do."""
    settings = DataSettings(shards=[str(folder)]).model_copy(update=changes)
    return Pairs(settings, Tokens(write_vocabulary(folder.parent / "words")), 16, texts_per_image)


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
