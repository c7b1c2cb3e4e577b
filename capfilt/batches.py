"""The samples of a unit made ready for the models: read, decoded, resized and batched, ahead of their use.

Shapes: B images of a batch, S side of a model's square input.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from capfilt.config import BootstrapConfig, Device
from capfilt.examine import examine
from capfilt.images import resize
from capfilt.indexing import open_planned
from capfilt.ledger.quarantine import QUARANTINED
from capfilt.med.gpu import copy_to_gpu
from capfilt.prefetch import prefetch
from capfilt.records import Sample, SampleRecord, Unit
from capfilt.runs import Run

Sides = tuple[int, int]
"""Sides of the captioner's and of the filter's square input, pixels."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A sample made ready for the models. One that cannot be used holds its place with a black image."""

    record: SampleRecord
    text: str  # exactly as it came
    for_captioner: np.ndarray  # RGB, uint8, (3, S, S) with S = captioner.image_size
    for_filter: np.ndarray  # the same for the filter; the same array where the sizes are equal


BatchReader = Callable[[Unit, Sides], Generator[list[Prepared], None, None]]
"""Yields the samples of a unit, made ready, in batches."""


def read_batches(config: BootstrapConfig, run: Run, unit: Unit, sides: Sides) -> Generator[list[Prepared], None, None]:
    """Yield batches of a unit's samples, made ready for the models; reading and decoding run ahead in threads."""
    samples = _hold(open_planned(run, unit.shard).read(unit.lo, unit.hi), unit)
    return prefetch(samples, config.batch_size, partial(prepare, sides, config), config.decode_threads)


def prepare(sides: Sides, config: BootstrapConfig, sample: Sample) -> Prepared:
    """Decode a sample's image, resize it for the models, and record what is known of the sample."""
    margin = config.images.jpeg_margin
    record, image = examine(sample, config.images, None if margin is None else margin * max(sides))
    if image is None:
        black = [np.zeros((3, side, side), np.uint8) for side in sides]
        return Prepared(record, sample.text, *black)
    # Processes pass arrays to each other without a copy; tensors would be pickled one by one.
    pixels = {side: resize(image.pixels, side).numpy() for side in set(sides)}  # (3, S, S) each
    return Prepared(record, sample.text, *(pixels[side] for side in sides))


def stack_pixels(images: Sequence[np.ndarray], device: Device) -> Tensor:
    """Return images (3, S, S) as the pixels of a batch, uint8 (B, 3, S, S), where the models want them.

    For a GPU they pass through pinned memory, which is used again: fresh memory costs a page fault for each 4 KiB,
    and these hold up all threads of the process.
    """
    gpu = device.kind == "cuda" and torch.cuda.is_available()
    batch = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=gpu)
    np.stack(images, out=batch.numpy())
    return copy_to_gpu(batch) if gpu else batch


def _hold(samples: Iterable[Sample], unit: Unit) -> Iterator[Sample]:
    """Yield the samples of a unit, with those that it holds marked as quarantined."""
    errors = {held.position: held.error for held in unit.held}
    for sample in samples:
        if sample.position in errors:
            sample = replace(sample, status=QUARANTINED, error=errors[sample.position])
        yield sample
