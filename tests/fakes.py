"""Stand-ins for the two models, exact and instant, and shards of plain colours for them to look at.

What they say depends on the noise, on the place in the batch and on its size, so that a unit whose batches were cut
elsewhere, or whose noise followed from anything but the image, would show.
"""

import io
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.filters import Scores
from capfilt.records import Caption
from capfilt.shards import write_tar
from capfilt.turns import UNSHARED, Turn

COLOURS = ("red", "green", "blue")
KINDS = ("square", "field", "wall", "screen", "flag")
RGB = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "white": (255, 255, 255)}
NAMES = {"captioner": "c0ffee", "filter": "f117e4"}


class ColourCaptioner:
    """Captions an image with the name of its strongest channel, and with noise for the rest."""

    name = NAMES["captioner"]
    image_size = 8

    def __init__(self, captions: int = 1, on_white: Callable[[], None] = lambda: None, delay: float = 0.0) -> None:
        self.captions, self.on_white, self.delay = captions, on_white, delay

    def caption(self, pixels: Tensor, noise: Sequence[int], turn: Turn = UNSHARED) -> list[list[Caption]]:
        with turn:
            return self.write(pixels, noise)

    def write(self, pixels: Tensor, noise: Sequence[int]) -> list[list[Caption]]:
        time.sleep(self.delay)
        if (pixels.flatten(1).min(dim=1).values > 250).any():
            self.on_white()
        return [
            [self._caption(colour, seed + n, slot, len(pixels)) for n in range(self.captions)]
            for slot, (colour, seed) in enumerate(zip(colours(pixels), noise, strict=True))
        ]

    def _caption(self, colour: str, seed: int, slot: int, batch: int) -> Caption:
        return Caption(f"a {colour} {KINDS[seed % len(KINDS)]}", 4, -(slot + batch / 1024))


class ColourFilter:
    """Gives P(match) 1 to a text that names the strongest channel, else 0, and the place in the batch as cosine."""

    name = NAMES["filter"]

    def __init__(self, image_size: int = 8, white: float | None = None) -> None:
        self.image_size, self.white = image_size, white  # P(match) of a white image, whatever the text
        self.texts: list[list[list[str]]] = []  # of each call

    def score(self, pixels: Tensor, texts: Sequence[Sequence[str]], turn: Turn = UNSHARED) -> list[list[Scores]]:
        with turn:
            return self.judge(pixels, texts)

    def judge(self, pixels: Tensor, texts: Sequence[Sequence[str]]) -> list[list[Scores]]:
        self.texts.append([list(group) for group in texts])
        return [
            [Scores(self._match(pixels[slot], colour, text), slot / len(pixels)) for text in group]
            for slot, (colour, group) in enumerate(zip(colours(pixels), texts, strict=True))
        ]

    def _match(self, image: Tensor, colour: str, text: str) -> float:
        if self.white is not None and image.min() > 250:
            return self.white
        return float(colour in text.split())


class Events(list[str]):
    """What happened, in order."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        self.append("turn")
        yield
        self.append("turn over")


def events(monkeypatch: pytest.MonkeyPatch, *watched: tuple[type, str]) -> Events:
    """Return what will happen, of the methods that are watched."""
    happened = Events()

    def watch(kind: type, name: str, method: Callable[..., Any]) -> None:
        monkeypatch.setattr(kind, name, lambda *arguments: happened.append(name) or method(*arguments))

    for kind, name in watched:
        watch(kind, name, getattr(kind, name))
    return happened


def colours(pixels: Tensor) -> list[str]:
    """Return the strongest channel of each image of a batch (B, 3, S, S)."""
    return [COLOURS[int(image.float().mean(dim=(1, 2)).argmax())] for image in pixels]


def build_fakes(config: BootstrapConfig, delay: float = 0.0) -> CapFilt:
    return CapFilt(ColourCaptioner(config.sampling.captions, delay=delay), ColourFilter())


def build_dying(config: BootstrapConfig, marker: str, times: int = 1, delay: float = 0.0) -> CapFilt:
    """Return models that end their process at the sight of a white image, the first few times."""
    captioner = ColourCaptioner(config.sampling.captions, partial(_die, Path(marker), times), delay)
    return CapFilt(captioner, ColourFilter())


def build_hanging(config: BootstrapConfig) -> CapFilt:
    """Return models that never come back from a white image."""
    return CapFilt(ColourCaptioner(config.sampling.captions, partial(time.sleep, 3600)), ColourFilter())


def build_nan(config: BootstrapConfig) -> CapFilt:
    """Return models whose score of a white image is no number."""
    return CapFilt(ColourCaptioner(config.sampling.captions), ColourFilter(white=math.nan))


def build_nothing(config: BootstrapConfig) -> CapFilt:
    raise AssertionError("the models were loaded, with nothing to do")


def _die(marker: Path, times: int) -> None:
    with marker.open("a") as file:
        file.write("x")
    if marker.stat().st_size <= times:
        os._exit(1)


def picture(colour: str, size: tuple[int, int] = (12, 10), kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, RGB[colour]).save(buffer, kind)
    return buffer.getvalue()


def write_shard(path: Path, samples: Iterable[tuple[str | bytes, str]]) -> str:
    """Write a tar of (colour or bytes of the image, text) samples and return its path."""
    members: list[tuple[str, bytes]] = []
    for n, (image, text) in enumerate(samples):
        members.append((f"{n:06d}.jpg", image if isinstance(image, bytes) else picture(image)))
        members.append((f"{n:06d}.txt", text.encode()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tar(str(path), members)
    return str(path)


def mixed_shards(folder: Path, shards: int = 3, samples: int = 21) -> None:
    """Write shards of colours that repeat after 7, whose texts are right, wrong or absent, with some broken images."""
    for shard in range(shards):
        content: list[tuple[str | bytes, str]] = []
        for n in range(samples):
            colour = COLOURS[(n + shard) % 3]
            text = ("", f"my {colour} car", "click here")[n % 7 % 3]
            content.append((picture(colour, (12 + n, 10 + shard)) if n % 5 else b"no image", text))
        write_shard(folder / f"{shard:05d}.tar", content)


def job_config(folder: Path, **changes: Any) -> BootstrapConfig:
    """Return the config of a small job over folder/in that does not export."""
    settings = {
        "input": [str(folder / "in")],
        "run": str(folder / "run"),
        "captioner": "c",
        "filter": "f",
        "batch_size": 4,
        "device": {"dtype": "float32", "linear": "plain"},
        "unit_size": 8,
        "controls": {"share": 0},
        "export": False,
        "cluster": {"workers": 2, "cpus_per_worker": 0.5, "attempts": 2},
    }
    return BootstrapConfig.model_validate(settings | changes)
