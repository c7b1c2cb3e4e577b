"""Training data: images with their texts by number, in an order that is a pure function of seed and step."""

import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from capfilt.config.data import DataSettings
from capfilt.config.training import Schedule
from capfilt.errors import ConfigError, ImageError, ShardError
from capfilt.images import decode, resize
from capfilt.med.tokens import Tokens
from capfilt.records import Sample
from capfilt.shards import ShardReader, find_shards, open_shard
from capfilt.texts import clean, normalise

EMPTY = ("[CLS]", "[SEP]")  # the tokens of a text without words


class Batch(NamedTuple):
    """Images and their texts; B images, n texts for each, R = B * n texts next to those of the same image."""

    pixels: Tensor  # uint8 (B, 3, S, S)
    ids: Tensor  # int64 (R, L): [CLS] in front, [SEP] behind, [PAD] to the longest
    keep: Tensor  # bool (R, L), True for real tokens
    images: Tensor  # int64 (B,): equal numbers are the same image


class Draw(NamedTuple):
    """One image of a batch and the number that its texts are drawn by."""

    sample: int
    chance: int


class Drawn(NamedTuple):
    """One image of a batch with the texts that were drawn for it."""

    pixels: Tensor  # uint8 (3, S, S)
    texts: list[list[int]]  # token ids
    image: int  # its number in the set


class Pairs(Dataset[Drawn]):
    """All usable samples of some shards: pixels, and the ids of as many drawn texts as asked for.

    The texts of a sample are its .txt, or the lists "texts" or "captions" of its JSON. A sample without a text or a
    readable image is left out; `left_out` counts them by reason.

    All texts stay in memory as token ids, some hundred bytes each: about 10 GB for 14 million. They are read once, in
    order, when the set is opened, and the images' bytes pass by on the way.
    """

    def __init__(self, settings: DataSettings, tokens: Tokens, image_size: int, texts_per_image: int) -> None:
        self.settings, self.tokens, self.image_size = settings, tokens, image_size
        self.texts_per_image = texts_per_image
        self.left_out: Counter[str] = Counter()
        self._shards: list[ShardReader] = []
        self._places: list[tuple[int, int]] = []  # (shard, position)
        self._pieces: list[list[list[int]]] = []  # ids of each text of each sample
        self._pixels: dict[int, Tensor] = {}
        for url in find_shards(settings.shards):
            self._add(open_shard(url))
        if not self._places:
            raise ConfigError(f"data.shards: no usable sample in {', '.join(settings.shards)}; left out: {self._why()}")

    def _add(self, shard: ShardReader) -> None:
        if shard.damage and self.settings.damage == "fail":
            raise ShardError(f"{shard.url}: {shard.damage}; fetch it again or set data.damage: keep-readable")
        for sample in shard.read(0, shard.samples):
            texts = [ids for text in texts_of(sample) if len(ids := self._encode(text)) > len(EMPTY)]
            reason = sample.status if sample.status != "ok" else "" if texts else "no_text"
            if not reason and self.settings.in_memory:
                reason = self._remember(sample)
            if reason:
                self.left_out[reason] += 1
                continue
            self._places.append((len(self._shards), sample.position))
            self._pieces.append(texts)
        self._shards.append(shard)

    def _remember(self, sample: Sample) -> str:
        try:
            self._pixels[len(self._places)] = self._read(sample)
        except ImageError as error:
            return error.reason
        return ""

    def _read(self, sample: Sample) -> Tensor:
        return resize(decode(sample.image, self.settings.images).pixels, self.image_size)

    def _encode(self, text: str) -> list[int]:
        words = normalise(clean(text), self.settings.max_words)
        return self.tokens.encode(words, self.tokens.cls, self.settings.max_tokens)

    def _why(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common()) or "none"

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, draw: Draw) -> Drawn:
        texts = self._pieces[draw.sample]
        rng = Generator(Philox(key=draw.chance))
        # A sample with fewer texts than asked for gives some of them twice.
        rounds = -(-self.texts_per_image // len(texts))
        order = np.concatenate([rng.permutation(len(texts)) for _ in range(rounds)])[: self.texts_per_image]
        return Drawn(self._image(draw.sample), [texts[i] for i in order], draw.sample)

    def _image(self, index: int) -> Tensor:
        if index in self._pixels:
            return self._pixels[index]
        shard, position = self._places[index]
        (sample,) = self._shards[shard].read(position, position + 1)
        try:
            return self._read(sample)
        except ImageError as error:
            raise ShardError(
                f"{self._shards[shard].url}: {sample.key}: {error}; train on clean shards, "
                "or set data.in_memory: true, which leaves such images out"
            ) from error

    def collate(self, items: list[Drawn]) -> Batch:
        """Put samples together, the texts of an image next to each other."""
        ids, keep = self.tokens.batch([text for item in items for text in item.texts])  # (R, L), (R, L)
        images = torch.tensor([item.image for item in items])  # (B,)
        return Batch(torch.stack([item.pixels for item in items]), ids, keep, images)


def texts_of(sample: Sample) -> list[str]:
    """Return the texts of a sample: the list of its JSON where there is one, else its own text."""
    with suppress(json.JSONDecodeError):  # such a sample still has its own text
        values = json.loads(sample.metadata)
        listed = values.get("texts") or values.get("captions") if isinstance(values, dict) else None
        if isinstance(listed, list) and all(isinstance(text, str) for text in listed):
            return listed
    return [sample.text] if sample.text else []


def batches(pairs: Pairs, schedule: Schedule, seed: int, start: int, workers: int) -> Iterator[Batch]:
    """Yield the batches of steps start to schedule.steps - 1, whatever was run before."""
    loader = DataLoader(
        pairs,
        batch_sampler=_Order(len(pairs), schedule, seed, start),
        collate_fn=pairs.collate,
        num_workers=workers,
        persistent_workers=False,
    )
    return iter(loader)


class _Order:
    """Every sample once an epoch, in a new order each time; step s is found without running the steps before it."""

    def __init__(self, samples: int, schedule: Schedule, seed: int, start: int) -> None:
        if samples < schedule.batch_size:
            raise ConfigError(f"schedule.batch_size: {schedule.batch_size}, but there are {samples} samples; lower it")
        self.samples, self.size, self.seed = samples, schedule.batch_size, seed
        self.steps = range(start, schedule.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, order = -1, np.empty(0, dtype=np.int64)
        per_epoch = self.samples // self.size  # the odd ones of an epoch wait for the next order
        for step in self.steps:
            if step // per_epoch != epoch:
                epoch = step // per_epoch
                order = Generator(Philox(key=np.array([self.seed, epoch], np.uint64))).permutation(self.samples)
            start = step % per_epoch * self.size
            yield [Draw(int(i), self._chance(step, int(i))) for i in order[start : start + self.size]]

    def _chance(self, step: int, index: int) -> int:
        return zlib.crc32(f"{self.seed}/{step}/{index}".encode())
