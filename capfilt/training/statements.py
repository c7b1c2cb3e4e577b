"""Sentences about two images, read from annotation files as published.

    NLVR2          lines of {"identifier": "train-10171-0-0", "sentence", "label": "True", "directory"}
    the original   [{"sentence", "label": "True", "images": [left, right]}]

Shapes: B sentences, each with two images, L tokens.
Source: BLIP, arXiv 2201.12086, section 5.4; the swap of the images comes from its released code.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from capfilt.annotations import Entry, field
from capfilt.config.data import Augmentation
from capfilt.config.tasks import SentenceData, SentenceFile
from capfilt.display import counted
from capfilt.errors import AnnotationError
from capfilt.med.tokenizer import Tokenizer
from capfilt.texts import normalise
from capfilt.training.augment import PLAIN, Views
from capfilt.training.entries import image_path, read_entries, read_pixels
from capfilt.training.passes import Draw

OTHER_SIDE = {"left": "right", "right": "left"}


class Statement(NamedTuple):
    """A sentence about two images, and whether it is true."""

    images: tuple[str, str]  # paths or URLs, left and right
    text: str
    label: bool


class StatementBatch(NamedTuple):
    """Sentences about two images each."""

    pixels: Tensor  # uint8 (B, 2, 3, S, S), left and right
    ids: Tensor  # int64 (B, L): [ENC] in front, [SEP] behind, [PAD] to the longest
    keep: Tensor  # bool (B, L), True for real tokens
    labels: Tensor  # int64 (B,), 1 where the sentence is true


class Stated(NamedTuple):
    """One sentence of a batch."""

    pixels: Tensor  # uint8 (2, 3, S, S)
    ids: list[int]
    label: bool


class Statements(Dataset[Stated]):
    """The sentences of some annotation files; their images are read on access."""

    def __init__(
        self, settings: SentenceData, tokenizer: Tokenizer, image_size: int, augmentation: Augmentation = PLAIN
    ) -> None:
        self.settings, self.tokenizer, self.views = settings, tokenizer, Views(image_size, augmentation)
        self.statements = [statement for file in settings.files for statement in read_statements(file)]

    def __len__(self) -> int:
        return len(self.statements)

    def __getitem__(self, draw: Draw) -> Stated:
        statement, settings, rng = self.statements[draw.sample], self.settings, draw.generator()
        images, text = statement.images, normalise(statement.text, settings.max_words)
        if settings.swap and rng.random() < 0.5:
            images, text = (images[1], images[0]), mirrored(text)
        kept = [self.views.keep(read_pixels(image, settings.limits)) for image in images]
        pixels = [self.views.draw(image, rng) for image in kept]  # (3, S, S) each
        ids = self.tokenizer.encode(text, self.tokenizer.enc, settings.max_tokens)
        return Stated(torch.stack(pixels), ids, statement.label)

    def content(self) -> list[Statement]:
        """Return all sentences."""
        return self.statements

    def collate(self, items: list[Stated]) -> StatementBatch:
        """Return sentences as a batch."""
        ids, keep = self.tokenizer.batch([item.ids for item in items])  # (B, L), (B, L)
        labels = torch.tensor([int(item.label) for item in items])  # (B,)
        return StatementBatch(torch.stack([item.pixels for item in items]), ids, keep, labels)


def read_statements(file: SentenceFile) -> list[Statement]:
    """Return the sentences of an annotation file, in its order.

    Raises:
        AnnotationError: it is missing, is not JSON, or has another layout; the message names the entry.
    """
    found = [_statement(entry, file.images, where) for entry, where in read_entries(file.annotations, "annotations")]
    if not found:
        raise AnnotationError(f"{file.annotations}: holds no sentence; fetch it again")
    return found


def mirrored(text: str) -> str:
    """Return a sentence with the words left and right swapped, for swapped images."""
    return " ".join(OTHER_SIDE.get(word, word) for word in text.split(" "))


def _statement(entry: Entry, pattern: str, where: str) -> Statement:
    label = str(entry.get("label")).lower()
    if label not in ("true", "false"):
        raise AnnotationError(
            f"{where}: label is {entry.get('label')!r}, neither True nor False; use a split with labels"
        )
    if "images" in entry:
        sides = [{"image": name} for name in cast("list[object]", field(entry, "images", list, where))]
    else:
        pair = str(field(entry, "identifier", str, where)).rpartition("-")[0]
        sides = [{"pair": pair, "side": side} for side in (0, 1)]
    if len(sides) != 2:
        raise AnnotationError(f"{where}: has {counted(len(sides), 'image')}, not two; fetch it again")
    left, right = (image_path(pattern, {**entry, **side}, where) for side in sides)
    return Statement((left, right), str(field(entry, "sentence", str, where)), label == "true")
