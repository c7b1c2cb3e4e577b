"""Samples made ready for the models, and batches of them."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from fakes import job_config, picture
from PIL import Image

from capfilt import batches
from capfilt.batches import prepare, stack_pixels
from capfilt.config import Device
from capfilt.images import decode, resize
from capfilt.records import Sample


@pytest.fixture
def config(tmp_path):
    return job_config(tmp_path)


def test_a_large_jpeg_is_shrunk_to_the_margin_of_the_larger_model_and_recorded_whole(config):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)  # pixels tell how they were decoded
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    sides, sample = (8, 4), Sample(0, "0", file.getvalue(), "")

    for margin, least_side in ((None, None), (1.0, 8), (2.0, 16), (2.5, 20), (2.6, None)):
        images = config.images.model_copy(update={"jpeg_margin": margin})
        ready = prepare(sides, config.model_copy(update={"images": images}), sample)
        pixels = decode(sample.image, config.images, least_side).pixels
        assert np.array_equal(ready.for_captioner, resize(pixels, 8))
        assert np.array_equal(ready.for_filter, resize(pixels, 4))
        assert (ready.record.width, ready.record.height) == (50, 40)


def test_models_of_different_sizes_each_get_theirs(config):
    ready = prepare((8, 4), config, Sample(0, "0", picture("red"), ""))

    assert (ready.for_captioner.shape, ready.for_filter.shape) == ((3, 8, 8), (3, 4, 4))


def test_an_image_is_resized_once_for_models_of_one_size(config):
    ready = prepare((8, 8), config, Sample(0, "0", picture("red"), ""))

    assert ready.for_captioner is ready.for_filter


def test_a_batch_for_a_gpu_goes_there_from_memory_that_it_reads_itself(monkeypatch):
    images, asked, empty = [np.full((3, 4, 4), value, np.uint8) for value in (7, 9)], [], torch.empty

    def pinned(*shape: object, pin_memory: bool, **rest: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return empty(*shape, **rest)  # without a driver there is no such memory

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", pinned)
    monkeypatch.setattr(batches, "copy_to_gpu", lambda pixels: asked.append("copy_to_gpu") or pixels)
    for kind in ("cuda", "cpu"):
        assert np.array_equal(stack_pixels(images, Device(kind=kind)), np.stack(images))
    assert asked == [True, "copy_to_gpu", False]
