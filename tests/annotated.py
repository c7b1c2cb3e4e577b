"""Small annotated sets: squares of two colours with captions in the small models' words."""

import io
import json
from pathlib import Path

from models import lively_checkpoint
from PIL import Image

from capfilt.annotations import read_annotations
from capfilt.config import FilterSettings
from capfilt.config.evaluation import READ_BY, EvaluateConfig, EvaluationData, EvaluationDevice
from capfilt.evaluation.images import ImageSet
from capfilt.filters.med import MEDFilter

CAPTIONS = (
    ["a red dog on the grass", "a dog"],
    ["a blue cat"],
    ["two dogs on the grass", "a picture of two red dogs"],
    ["the blue dog of the cat", "a cat on the dog", "the cat"],
)


def png(colour: str = "red", shade: int = 0) -> bytes:
    """Return a square on white."""
    image = Image.new("RGB", (16, 16), "white")
    image.paste((230, shade, 20) if colour == "red" else (20, shade, 230), (4, 4, 12, 12))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def write_lines(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_set(folder: Path) -> Path:
    """Write four images and captions.jsonl, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(CAPTIONS)):
        (folder / f"{number}.png").write_bytes(png(["red", "blue"][number % 2], shade=3 * number))
    entries = [{"image": f"{number}.png", "captions": texts} for number, texts in enumerate(CAPTIONS)]
    write_lines(folder / "captions.jsonl", entries)
    return folder


def config(folder: Path, task: str = "retrieval", **changes: object) -> EvaluateConfig:
    settings: dict[str, object] = {
        "task": task,
        "checkpoint": str(folder / "model"),
        "data": EvaluationData(annotations=str(folder / "captions.jsonl"), images=str(folder)),
        "output": str(folder / "result.json"),
    }
    if task in READ_BY["batch_size"]:
        settings["batch_size"] = 3
    return EvaluateConfig.model_validate(settings | changes)


def image_set(settings: EvaluateConfig, side: int = 32) -> ImageSet:
    assert settings.data
    return ImageSet(read_annotations(settings.data), settings.data, settings, side)


def judge(folder: Path, seed: int = 0, itc: bool = True) -> MEDFilter:
    checkpoint = lively_checkpoint(folder, seed, decoder=False)
    return MEDFilter("judge", checkpoint, FilterSettings(itc=itc), EvaluationDevice())
