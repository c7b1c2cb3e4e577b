"""Training data: batches of images with their texts, in an order that depends on seed and step alone.

    data = open_data(settings, schedule, checkpoint, seed, file)
    data.epoch_steps, len(data)
    data.batches(range(start, stop), share, shares)    one Batch for each step, with one share of the global batch
    data.left_out                                      counts by reason; grows as unusable samples are found

The global batch of a step is the same for any number of shares and of loader processes: a share is a range of its
places. Catalogue lists the shards, Mixture decides which sample is at which place, Preparation decodes samples, and
Views augments their images.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from capfilt.config.data import DataSettings
from capfilt.config.training import Schedule
from capfilt.errors import CapfiltError
from capfilt.med.checkpoints import Checkpoint
from capfilt.training.augment import Views
from capfilt.training.catalogue import Catalogue
from capfilt.training.loading import Failure, taken, unchanged
from capfilt.training.mixture import Mixture
from capfilt.training.order import DRAWS, Place, chance
from capfilt.training.reading import Blocks, Look, OpenShards, Preparation, Unusable, draw_texts, remember, usable

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Images and their texts: B images with n texts each, R = B * n texts; those of one image are neighbours."""

    pixels: Tensor  # uint8 (B, 3, S, S)
    ids: Tensor  # int64 (R, L): [CLS] in front, [SEP] behind, [PAD] to the longest
    keep: Tensor  # bool (R, L), True for real tokens
    images: Tensor  # int64 (B,): equal numbers are the same image, over all sources


class Drawn(NamedTuple):
    """The sample at one place of a batch."""

    pixels: Tensor  # uint8 (3, S, S)
    texts: list[list[int]]  # token ids
    image: int
    unusable: dict[Place, Unusable]  # samples that this one replaces


class Part(NamedTuple):
    """What one loader process contributes to a batch: P images."""

    pixels: Tensor  # uint8 (P, 3, S, S)
    texts: list[list[int]]  # token ids, n for each image
    images: list[int]
    unusable: dict[Place, Unusable]


def open_data(
    settings: DataSettings, schedule: Schedule, checkpoint: Checkpoint, seed: int, file: str | None = None
) -> "TrainingData":
    """Index the shards, and read all samples if settings.in_memory.

    Args:
        settings: which shards, and how they are read.
        schedule: the batch size, and how many texts are drawn for an image.
        checkpoint: of the model that is trained: its image size and its tokenizer.
        seed: of order, text draws and augmentation.
        file: path or URL of the table of shards: read if it exists, else written, so that a resumed run has the shards
            that it started with.

    Raises:
        ConfigError: there is nothing to train on, texts are longer than the model takes, or a batch is too small or too
            large for a source.
        RunError: shards were added or removed since the file was written.
        ShardError: a shard is damaged, and data.damage says fail.
    """
    sizes = checkpoint.model.config
    sizes.require_room("data.max_tokens", settings.max_tokens)
    catalogue = Catalogue(settings, file)
    mixture = Mixture(catalogue, seed, schedule.batch_size)
    prepare = Preparation(settings, checkpoint.tokenizer, Views(sizes.vision.image_size, settings.augmentation))
    return TrainingData(catalogue, mixture, prepare, schedule.texts_per_image, seed)


class TrainingData:
    """The samples of all sources, by step.

    Whether a sample has a text and a readable image is known only once it is read. The next usable sample of its shard
    replaces one that has not. With in_memory, all samples are read at the start.
    """

    def __init__(
        self, catalogue: Catalogue, mixture: Mixture, prepare: Preparation, texts_per_image: int, seed: int
    ) -> None:
        self.catalogue, self.mixture, self.prepare = catalogue, mixture, prepare
        self.texts_per_image, self.seed = texts_per_image, seed
        self.epoch_steps = max(1, int(catalogue.epoch_samples / len(mixture.dealt)))
        self._first_image = np.cumsum([0, *catalogue.samples]).tolist()  # of each shard
        self._memory = remember(catalogue, prepare) if catalogue.settings.in_memory else None
        self._unusable: dict[Place, str] = {}  # reason of each one found; other ranks may find others
        self._told: set[str] = set()  # reasons
        self._note({at: found for at, found in (self._memory or {}).items() if isinstance(found, Unusable)})

    def __len__(self) -> int:
        """Return how many samples there are, without those found unusable so far."""
        return sum(self.catalogue.samples) - len(self._unusable)

    @property
    def left_out(self) -> Counter[str]:
        """How many samples were found unusable, by reason."""
        return Counter(self._unusable.values())

    def state_dict(self) -> dict[str, Tensor]:
        """Return shard and position of the samples found unusable, int64 (N, 2) for each reason."""
        found: dict[str, list[Place]] = defaultdict(list)
        for place, reason in self._unusable.items():
            found[reason].append(place)
        return {reason: torch.tensor(places) for reason, places in found.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Count the samples that were found unusable before the run was stopped."""
        for reason, places in state.items():
            self._unusable |= {Place(*place): reason for place in places.tolist()}

    def batches(self, steps: range, share: int = 0, shares: int = 1) -> Iterator[Batch]:
        """Yield, for each step, one of equally large shares of its batch.

        Raises:
            ShardError: a shard changed, or holds no usable sample.
        """
        each = len(self.mixture.dealt) // shares
        processes = min(self.catalogue.settings.workers, each)
        loader = DataLoader(
            _Parts(self, range(share * each, (share + 1) * each), steps),
            batch_size=None,
            num_workers=processes,
            collate_fn=unchanged,
            generator=torch.Generator(),  # else the loader's seeds would advance the model's random numbers
        )
        return self._collated(taken(iter(loader)), len(steps), max(1, processes))

    def _collated(self, parts: Iterator[Part], steps: int, processes: int) -> Iterator[Batch]:
        for _ in range(steps):
            yield self._collate(list(islice(parts, processes)))  # torch's loader takes its processes in turn

    def _collate(self, parts: Sequence[Part]) -> Batch:
        for part in parts:
            self._note(part.unusable)
        ids, keep = self.prepare.tokenizer.batch([text for part in parts for text in part.texts])  # (R, L), (R, L)
        images = torch.tensor([image for part in parts for image in part.images])  # (B,)
        return Batch(torch.cat([part.pixels for part in parts]), ids, keep, images)

    def _note(self, unusable: Mapping[Place, Unusable]) -> None:
        """Count samples that are left out, each once, and log the first of each kind."""
        for place, (reason, what) in unusable.items():
            if place in self._unusable:
                continue
            if reason not in self._told:
                logger.warning("%s; it is left out; others that are %s are only counted", what, reason)
            self._told.add(reason)
            self._unusable[place] = reason

    def drawn(self, place: int, steps: range, shards: OpenShards) -> Iterator[Drawn]:
        """Yield the sample at one place of the global batch, for every step."""
        memory, size = self._memory, self.catalogue.settings.block_size
        look: Look = Blocks(shards, self.prepare, size) if memory is None else memory.__getitem__
        for step, at in zip(steps, self.mixture.samples(place, steps.start), strict=False):  # samples have no end
            found, sample, unusable = usable(look, at, self.catalogue.shards[at.shard])
            rng = chance(self.seed, DRAWS, step, place)
            texts = draw_texts(sample.texts, self.texts_per_image, rng)
            image = self._first_image[found.shard] + found.position
            yield Drawn(self.prepare.views.draw(sample.pixels, rng), texts, image, unusable)


class _Parts(IterableDataset[Part | Failure]):
    """Some places of every batch, split between the loader's processes."""

    def __init__(self, data: TrainingData, places: range, steps: range) -> None:
        self.data, self.places, self.steps = data, places, steps

    def __iter__(self) -> Iterator[Part | Failure]:
        process = get_worker_info()
        number, processes = (process.id, process.num_workers) if process else (0, 1)
        lo, hi = (len(self.places) * n // processes for n in (number, number + 1))
        shards = OpenShards(self.data.catalogue)
        lanes = [self.data.drawn(place, self.steps, shards) for place in self.places[lo:hi]]
        try:
            yield from (_part(drawn) for drawn in zip(*lanes, strict=True))
        except (CapfiltError, OSError) as failure:
            yield failure


def _part(drawn: Sequence[Drawn]) -> Part:
    return Part(
        pixels=torch.stack([one.pixels for one in drawn]),  # (P, 3, S, S)
        texts=[text for one in drawn for text in one.texts],
        images=[one.image for one in drawn],
        unusable={at: unusable for one in drawn for at, unusable in one.unusable.items()},
    )
