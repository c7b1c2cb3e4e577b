"""What two models with the same vision tower see: made once, kept for the other one, and forgotten."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from capturing import Steps
from models import lively_checkpoint
from torch import Tensor

from capfilt.captioners.med import MEDCaptioner
from capfilt.config import BootstrapConfig, Device, FilterSettings, Sampling
from capfilt.filters.med import MEDFilter
from capfilt.med.checkpoints import Checkpoint, save
from capfilt.med.graphs import CAPTURES, GraphRunner
from capfilt.med.image_encoder import ImageCache, ImageEncoder, image_cache
from capfilt.med.vision import VisionTower
from capfilt.models import build_models, outline_models

CPU = Device(kind="cpu", dtype="float32", linear="plain")
SEEDS = [1, 2, 3]
TEXTS = [["a red dog", "two cats"], ["the grass"], ["a blue cat"]]


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture
def kept() -> ImageCache:
    return image_cache()


@pytest.fixture
def looks() -> Iterator[list[int]]:
    """The sizes of the batches that any tower encodes."""
    sizes: list[int] = []

    def note(module: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        if isinstance(module, VisionTower):
            sizes.append(len(inputs[0]))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(note)
    yield sizes
    hook.remove()


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return lively_checkpoint(tmp_path, seed=5)


def models(checkpoint: Checkpoint, kept: ImageCache | None) -> tuple[MEDCaptioner, MEDFilter]:
    captioner = MEDCaptioner("captioner", checkpoint, Sampling(captions=2), CPU, kept)
    return captioner, MEDFilter("filter", checkpoint, FilterSettings(), CPU, kept)


def test_a_batch_is_encoded_once_and_both_say_what_they_say_alone(checkpoint, pixels, kept, looks):
    captioner, judge = models(checkpoint, None)
    expected = captioner.caption(pixels, SEEDS), judge.score(pixels, TEXTS)
    assert looks == [3, 3]
    captioner, judge = models(checkpoint, kept)
    assert (captioner.caption(pixels, SEEDS), judge.score(pixels, TEXTS)) == expected
    assert looks == [3, 3, 3]


def test_what_both_have_taken_is_kept_no_longer(checkpoint, pixels, kept):
    captioner, judge = models(checkpoint, kept)
    captioner.caption(pixels, SEEDS)
    assert len(kept) == 1
    judge.score(pixels, TEXTS)
    assert len(kept) == 0


def test_what_the_other_never_asks_for_goes_with_its_pixels(checkpoint, pixels, kept):
    captioner, judge = models(checkpoint, kept)
    others = pixels.clone()
    captioner.caption(others, SEEDS)
    judge.score(others, [[], [], []])
    assert len(kept) == 1
    del others
    assert len(kept) == 0


def test_batches_between_each_other_are_not_mixed_up(checkpoint, pixels, kept):
    """As with several units in hand, on tensors that are used again as on a GPU."""
    other, steps = pixels.flip(0), Steps()
    captioner, judge = models(checkpoint, None)
    expected = [judge.score(each, TEXTS) for each in (pixels, other)]
    captioner, judge = models(checkpoint, kept)
    for model in (captioner, judge):
        model._image_encoder._runner = GraphRunner(model._image_encoder._see, lambda: steps)
    captioner.caption(pixels, SEEDS), captioner.caption(other, SEEDS)
    assert [judge.score(each, TEXTS) for each in (pixels, other)] == expected
    assert steps.captured == 1


@pytest.mark.parametrize(("captured", "expected_sizes"), [(False, [5, 3, 2, 2, 1]), (True, [5, 3, 2, 2, 2, 2, 1])])
def test_a_batch_that_does_not_fit_is_seen_in_parts(checkpoint, monkeypatch, captured, expected_sizes):
    """Each image as itself, also where parts go through the same tensors, as on a GPU."""
    pixels = torch.randint(256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = ImageEncoder(checkpoint.model, CPU)(pixels)
    whole, sizes = VisionTower.forward, []

    def small(self: VisionTower, images: Tensor) -> Tensor:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return whole(self, images)

    monkeypatch.setattr(VisionTower, "forward", small)
    if captured:
        monkeypatch.setitem(CAPTURES, "cpu", Steps)
    encoder = ImageEncoder(checkpoint.model, CPU)
    torch.testing.assert_close(encoder(pixels), expected)
    assert sizes == expected_sizes


def built(folder: Path, judge: Checkpoint, device: Device = CPU) -> tuple[MEDCaptioner, MEDFilter]:
    save(judge, folder / "filter")
    places = {role: str(folder / role) for role in ("captioner", "filter")}
    config = BootstrapConfig(input=["in"], run="out", device=device, **places)
    found = build_models(config)
    outlined = outline_models(config)
    assert isinstance(found.captioner, MEDCaptioner)
    assert isinstance(found.filter, MEDFilter)
    assert found.sides == outlined.sides
    return found.captioner, found.filter


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("linear", ["plain", "packed"])
def test_checkpoints_with_the_same_tower_are_built_to_share_it(tmp_path, checkpoint, pixels, looks, dtype, linear):
    save(checkpoint, tmp_path / "captioner")
    other = lively_checkpoint(tmp_path, seed=6)
    other.model.vision.load_state_dict(checkpoint.model.vision.state_dict())
    device = CPU.model_copy(update={"dtype": dtype, "linear": linear})
    captioner, judge = built(tmp_path, other, device)
    assert captioner.model.vision is judge.model.vision
    captioner.caption(pixels, SEEDS)
    shared = judge.score(pixels, TEXTS)
    assert looks == [3]
    assert shared == MEDFilter("filter", other, FilterSettings(), device).score(pixels, TEXTS)


def test_a_tower_that_differs_in_one_number_is_another(tmp_path, checkpoint, pixels, looks):
    save(checkpoint, tmp_path / "captioner")
    checkpoint.model.vision.vit.cls_token.data[0, 0, 0] += 1e-3
    captioner, judge = built(tmp_path, checkpoint)
    captioner.caption(pixels, SEEDS), judge.score(pixels, TEXTS)
    assert looks == [3, 3]
