"""Samples that a model can be trained on, by place: read in blocks, or kept in memory."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
from numpy.random import Generator
from torch import Tensor

from capfilt.config.data import DataSettings
from capfilt.errors import ConfigError, ImageError, ShardError
from capfilt.images import decode
from capfilt.med.tokenizer import Tokenizer
from capfilt.records import Sample, Shard
from capfilt.shards import ShardReader
from capfilt.texts import clean, normalise
from capfilt.training.augment import Views
from capfilt.training.catalogue import Catalogue
from capfilt.training.order import Place

EMPTY = ("[CLS]", "[SEP]")  # the tokens of a text without words


class Usable(NamedTuple):
    """A decoded sample, before augmentation and the draw of its texts."""

    pixels: Tensor  # uint8 (3, H, W), from which views are drawn
    texts: list[list[int]]  # token ids of all texts, at least one


class Unusable(NamedTuple):
    """A sample that cannot be trained on."""

    reason: str
    what: str  # the sample, and what is wrong with it


Look = Callable[[Place], Usable | Unusable]


class Preparation:
    """Decodes the images and encodes the texts of samples."""

    def __init__(self, settings: DataSettings, tokenizer: Tokenizer, views: Views) -> None:
        self.settings, self.tokenizer, self.views = settings, tokenizer, views

    def __call__(self, sample: Sample, url: str) -> Usable | Unusable:
        """Decode the image and encode the texts: the list "texts" or "captions" of the JSON, or the .txt."""
        where = f"{url}: {sample.key}"
        if sample.status != "ok":
            return Unusable(sample.status, f"{where}: {sample.error}")
        texts = [ids for text in texts_of(sample) if len(ids := self._encode(text)) > len(EMPTY)]
        if not texts:
            return Unusable("no_text", f"{where}: no text has a word, its text is {sample.text_status}")
        try:
            return Usable(self.views.keep(decode(sample.image, self.settings.images).pixels), texts)
        except ImageError as error:
            return Unusable(error.reason, f"{where}: {error}")

    def _encode(self, text: str) -> list[int]:
        words = normalise(clean(text), self.settings.max_words)
        return self.tokenizer.encode(words, self.tokenizer.cls, self.settings.max_tokens)


def texts_of(sample: Sample) -> list[str]:
    """Return the texts of a sample: the list in its JSON if there is one, else its own text."""
    with suppress(ValueError, RecursionError):  # not JSON, or too deeply nested: the sample still has its own text
        values = json.loads(sample.metadata)
        listed = values.get("texts") or values.get("captions") if isinstance(values, dict) else None
        if listed and isinstance(listed, list) and all(isinstance(text, str) for text in listed):
            return listed
    return [sample.text] if sample.text else []


class OpenShards:
    """Shards, each open as long as a lane of this process reads it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._open: WeakValueDictionary[int, ShardReader] = WeakValueDictionary()

    def __getitem__(self, number: int) -> ShardReader:
        reader = self._open.get(number)
        if reader is None:
            reader = self._open[number] = self.catalogue.open(number)
        return reader


class Blocks:
    """Reads the samples of one lane; one block of neighbours is in memory, as encoded files."""

    def __init__(self, shards: OpenShards, prepare: Preparation, size: int) -> None:
        self.shards, self.prepare, self.size = shards, prepare, size
        self._number = -1
        self._shard: ShardReader | None = None
        self._first = 0
        self._samples: list[Sample] = []

    def __call__(self, place: Place) -> Usable | Unusable:
        """Return the prepared sample at a place; its block is read if the last place was in another one."""
        if self._shard is None or place.shard != self._number:
            self._number, self._shard = place.shard, self.shards[place.shard]
            self._samples = []
        if not 0 <= place.position - self._first < len(self._samples):
            self._first = place.position - place.position % self.size
            stop = min(self._first + self.size, self._shard.samples)
            self._samples = list(self._shard.read(self._first, stop))
        return self.prepare(self._samples[place.position - self._first], self._shard.url)


def remember(catalogue: Catalogue, prepare: Preparation) -> dict[Place, Usable | Unusable]:
    """Return all samples, prepared.

    Raises:
        ConfigError: none of them is usable.
    """
    found = {
        Place(number, sample.position): prepare(sample, shard.url)
        for number, shard in enumerate(catalogue.shards)
        if shard.samples
        for sample in catalogue.open(number).read(0, shard.samples)
    }
    if all(isinstance(each, Unusable) for each in found.values()):
        raise ConfigError(f"data: no usable sample in {catalogue.shards[0].url} and the others: {_reasons(found)}")
    return found


def usable(look: Look, place: Place, shard: Shard) -> tuple[Place, Usable, dict[Place, Unusable]]:
    """Return the sample at a place, or the next one after it that is usable, and those before it that are not.

    The first sample of the shard follows its last, so a replacement depends on the shard alone.

    Raises:
        ShardError: the shard holds no usable sample.
    """
    unusable: dict[Place, Unusable] = {}
    for position in chain(range(place.position, shard.samples), range(place.position)):
        at = Place(place.shard, position)
        found = look(at)
        if isinstance(found, Usable):
            return at, found, unusable
        unusable[at] = found
    raise ShardError(f"{shard.url}: no sample can be trained on: {_reasons(unusable)}; leave the shard out")


def _reasons(samples: Mapping[Place, Usable | Unusable]) -> str:
    """Return how many samples are unusable for which reasons, and what the first one has; there must be one."""
    unusable = [sample for sample in samples.values() if isinstance(sample, Unusable)]
    reasons = Counter(sample.reason for sample in unusable)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{counts} (first: {unusable[0].what})"


def draw_texts(texts: Sequence[list[int]], count: int, rng: Generator) -> list[list[int]]:
    """Return `count` texts of an image: all different if it has enough, else each about equally often."""
    rounds = -(-count // len(texts))
    order = np.concatenate([rng.permutation(len(texts)) for _ in range(rounds)])[:count]
    return [texts[i] for i in order]
