"""The batch size of a run whose settings name none: found by trial, where the models run."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from capfilt.bootstrap import CapFilt

MIN_BATCH = 8  # images; control texts are drawn within a batch, so one must have some
MAX_BATCH = 512
WARM_UP = 2  # images of a first call, in which a GPU's libraries set themselves up
MIN_GAIN = 1.03  # times as many images a second, for which a larger batch is taken
LONG_SECONDS = 5.0  # a batch that takes longer keeps its device busy at any size
REPEATS = 3
WEB_TEXT = "a text of about as many words as those that come with images from the web"

logger = logging.getLogger(__name__)


def find_batch_size(models: CapFilt, clock: Callable[[], float] = time.perf_counter) -> int:
    """Return the batch size, a power of two, from which on doubling it gains next to nothing.

    A batch that does not fit into memory is computed in parts, gains nothing, and so ends the search.

    Args:
        models: both models, on their device.
        clock: returns the time in seconds.
    """
    best, chosen = 0.0, MIN_BATCH
    for size, rate in _rates(models, clock):
        logger.info("batch size %d: %.1f images/s", size, rate)
        if rate < MIN_GAIN * best:
            break
        best, chosen = rate, size
    return chosen


def _rates(models: CapFilt, clock: Callable[[], float]) -> Iterator[tuple[int, float]]:
    """Yield sizes, each twice the one before, and the images a second at each."""
    _seconds(models, WARM_UP, clock)
    size = MIN_BATCH
    while size <= MAX_BATCH:
        if models.turns.apart:
            _fill(models, size)
        if _seconds(models, size, clock) >= LONG_SECONDS:
            return
        yield size, size / min(_seconds(models, size, clock) for _ in range(REPEATS))
        size *= 2


def _seconds(models: CapFilt, size: int, clock: Callable[[], float]) -> float:
    """Return how long both models take for a batch of noise, each image with one web text and its captions."""
    for_captioner, for_filter = _pixels(models, size)
    start = clock()
    captions = models.captioner.caption(for_captioner, range(size))  # B lists
    texts = [[WEB_TEXT, *(caption.text for caption in group)] for group in captions]
    models.filter.score(for_filter, texts)
    return clock() - start


def _fill(models: CapFilt, size: int) -> None:
    """Have a batch in each model at once, as units that share a device do. What does not fit is computed in parts.

    The filter's batch was captioned before: models with one tower pass on its image tokens, which must be complete.
    """
    (for_captioner, for_filter), (others, _) = _pixels(models, size), _pixels(models, size)
    models.captioner.caption(for_captioner, range(size))
    with ThreadPoolExecutor(2) as pool:
        captioning = pool.submit(models.captioner.caption, others, range(size))
        scoring = pool.submit(models.filter.score, for_filter, [[WEB_TEXT] * 2] * size)
        captioning.result()
        scoring.result()


def _pixels(models: CapFilt, size: int) -> list[Tensor]:
    """Return noise for both models, uint8 (B, 3, S, S) each: as in a run, the same tensor where sides are equal."""
    generator = torch.Generator().manual_seed(size)
    pixels = {
        side: torch.randint(256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
        for side in dict.fromkeys(models.sides)
    }
    return [pixels[side] for side in models.sides]
