"""Scenes: what is in an image of the demo world, and how a scene is drawn at random.

A scene is a background and one or two groups of equal objects. Two groups are in opposite regions
and never share a shape, so "the circles" is one group, and "left of" or "above" is unambiguous. All
lengths and positions are shares of the image's side, x to the right and y down.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.random import Generator, Philox

from capfilt.errors import CapfiltError

Colour = Literal["red", "green", "blue", "yellow", "purple", "orange", "white", "black"]
Shape = Literal["circle", "square", "triangle", "star"]
Size = Literal["small", "large"]
Region = Literal["left", "right", "top", "bottom", "centre"]

COLOURS: tuple[Colour, ...] = get_args(Colour)
SHAPES: tuple[Shape, ...] = get_args(Shape)
SIZES: tuple[Size, ...] = get_args(Size)
REGIONS: tuple[Region, ...] = get_args(Region)
MAX_COUNT = 3
DIAMETER: dict[Size, float] = {"small": 10 / 64, "large": 17 / 64}

_PAIRS: tuple[tuple[Region, Region], ...] = (("left", "right"), ("top", "bottom"))
_MIDDLE: dict[Region, tuple[float, float]] = {
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.25),
    "bottom": (0.5, 0.75),
    "centre": (0.5, 0.5),
}
_GAP = 2 / 64  # least space between two objects
_PITCH = DIAMETER["large"] + _GAP  # largest distance of two neighbours: three large objects fill a side
_DRIFT = 4 / 64  # how far the middle of a group moves: the regions stay clearly apart
_SHAKE = 2 / 64  # how far an object moves across its row

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Group:
    """One to three objects that differ only in their place."""

    size: Size
    colour: Colour
    shape: Shape
    region: Region
    centres: tuple[tuple[float, float], ...]  # (x, y) of each object

    @property
    def count(self) -> int:
        """How many objects the group has."""
        return len(self.centres)


@dataclass(frozen=True, slots=True)
class Background:
    """A vertical gradient between two greys, with noise."""

    top: int  # grey level, 0 to 255
    bottom: int
    noise_seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that determines an image and the truth of a text."""

    background: Background
    groups: tuple[Group, ...]


def stream(seed: int, split: str, index: int, purpose: str) -> Generator:
    """Return the random numbers of sample `index` for one purpose; they depend on the arguments alone."""
    digest = hashlib.blake2b(f"{seed}/{split}/{index}/{purpose}".encode(), digest_size=16).digest()
    return Generator(Philox(key=int.from_bytes(digest, "little")))


def scene_at(seed: int, split: str, index: int) -> Scene:
    """Return scene `index` of a split."""
    return sample_scene(stream(seed, split, index, "scene"))


def sample_scene(rng: Generator) -> Scene:
    """Draw a scene: three in five have two groups."""
    top, bottom, noise_seed = (int(number) for number in rng.integers((100, 100, 0), (171, 171, 2**32)))
    if rng.random() < 0.6:
        pair = pick(rng, _PAIRS)
        shapes = rng.permutation(len(SHAPES))[:2]
        groups = [_sample_group(rng, SHAPES[shape], region) for shape, region in zip(shapes, pair, strict=True)]
    else:
        groups = [_sample_group(rng, pick(rng, SHAPES), pick(rng, REGIONS))]
    return Scene(Background(top, bottom, noise_seed), tuple(groups))


def pick(rng: Generator, items: tuple[Item, ...]) -> Item:
    """Draw one of the items, all equally likely."""
    return items[int(rng.integers(len(items)))]


def _sample_group(rng: Generator, shape: Shape, region: Region) -> Group:
    size = pick(rng, SIZES)
    return Group(size, pick(rng, COLOURS), shape, region, _sample_centres(rng, size, region))


def _sample_centres(rng: Generator, size: Size, region: Region) -> tuple[tuple[float, float], ...]:
    """Place one to three objects along their region: a column left or right, a row at top or bottom."""
    count = int(rng.integers(1, MAX_COUNT + 1))
    pitch = rng.uniform(DIAMETER[size] + _GAP, _PITCH)
    along = (np.arange(count) - (count - 1) / 2) * pitch  # (count,)
    across = rng.uniform(-_SHAKE, _SHAKE, count)  # (count,)
    column = region in ("left", "right") or (region == "centre" and rng.random() < 0.5)
    offsets = np.stack([across, along] if column else [along, across], axis=1)  # (count, 2)
    middle = np.array(_MIDDLE[region]) + rng.uniform(-_DRIFT, _DRIFT, 2)
    return tuple((float(x), float(y)) for x, y in (middle + offsets).round(4))


def scene_from_metadata(metadata: str) -> Scene:
    """Return the scene that the JSON of a world sample describes under its key "scene".

    Raises:
        CapfiltError: the JSON holds no scene, so the sample is not of the demo world.
    """
    try:
        values = json.loads(metadata)["scene"]
        groups = tuple(
            Group(**{**group, "centres": tuple((x, y) for x, y in group["centres"])}) for group in values["groups"]
        )
        return Scene(Background(**values["background"]), groups)
    except (ValueError, KeyError, TypeError) as error:
        raise CapfiltError(
            f'no scene in the metadata {metadata[:80]!r} ({error!r}); only samples of "capfilt demo" have one'
        ) from None
