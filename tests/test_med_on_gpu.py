"""What the models ask of a GPU, seen without one: tensors that have a device and a shape and no values.

Such tensors refuse what fails on a GPU, a product of tensors on two devices or of two types, and what makes the host
wait for the GPU: a shape or a branch that depends on values.
"""

from collections.abc import Iterator

import pytest
import torch
from models import small_config
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from capfilt.config import Device, Sampling
from capfilt.med.attention import KeysValues
from capfilt.med.draft import Draft
from capfilt.med.generation import sample
from capfilt.med.inference import on_device, round_products
from capfilt.med.linear import replace_linear
from capfilt.med.model import MED

VOCABULARY, IMAGES = 300, 3
GPU = torch.device("cuda:0")


@pytest.fixture(params=["bfloat16", "float32"])
def device(request) -> Device:
    return Device(kind="cuda", dtype=request.param, linear="plain")


@pytest.fixture
def model(device) -> Iterator[MED]:
    """A model on a GPU, as ready brings it there, without values; everything else is then without values, too."""
    with torch.device("meta"):
        model = MED(small_config(VOCABULARY)).eval()
        if device.dtype == "bfloat16":
            round_products(model)
            replace_linear(model, packed=False)
    with FakeTensorMode(), torch.inference_mode():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                there = torch.empty(parameter.shape, dtype=parameter.dtype, device=GPU)
                setattr(module, name, torch.nn.Parameter(there, requires_grad=False))
        yield model


def see(model: MED, device: Device, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)  # needs a driver
    pixels = torch.zeros((IMAGES, 3, 32, 32), dtype=torch.uint8)
    return model.encode_image(on_device(pixels, device))  # (B, M, D)


def write(model: MED, image: list[KeysValues], **settings: object) -> Tensor:
    chosen = Sampling.model_validate({"captions": 2, **settings})
    noise = torch.zeros((IMAGES * chosen.captions, chosen.max_length), dtype=torch.float64, device=GPU)
    return sample(model, image, [5, 6, 7], 2, chosen, noise).ids  # (R, T)


def test_images_are_seen_on_the_gpu_in_the_type_of_the_products(model, device, monkeypatch):
    image = see(model, device, monkeypatch)
    assert (image.device, image.dtype) == (GPU, getattr(torch, device.dtype))
    for tensor in (tensor for pair in model.project_image(image) for tensor in pair):
        assert (tensor.device, tensor.dtype, tensor.shape) == (GPU, image.dtype, (IMAGES, 2, 17, 16))
    assert (model.image_features(image).device, model.image_features(image).dtype) == (GPU, torch.float32)


@pytest.mark.parametrize("settings", [{}, {"top_k": 10}, {"top_p": 1.0}, {"temperature": 0.7, "min_length": 9}])
def test_no_token_makes_the_host_wait(model, device, monkeypatch, settings):
    looks: list[int] = []
    monkeypatch.setattr(Draft, "shrink", lambda self, step: looks.append(step) or True)
    image = model.project_image(see(model, device, monkeypatch))
    ids = write(model, image, **settings)
    assert (ids.device, ids.shape) == (GPU, (IMAGES * 2, 20))
    assert looks == list(range(3, 19))


def test_a_nucleus_of_all_tokens_makes_it_wait(model, device, monkeypatch):
    monkeypatch.setattr(Draft, "shrink", lambda self, step: True)
    image = model.project_image(see(model, device, monkeypatch))
    with pytest.raises(DataDependentOutputException):
        write(model, image, top_k=0)


@pytest.mark.usefixtures("model")
def test_what_is_finished_is_looked_for_at_every_fourth_token():
    rows = torch.zeros(4, dtype=torch.long, device=GPU)
    draft = Draft([], [], rows[:, None], rows, rows, rows.bool())
    waiting = []
    for step in range(4, 12):
        try:
            draft.shrink(step)
        except DynamicOutputShapeException:
            waiting.append(step)
    assert waiting == [4, 8]


def test_texts_are_matched_on_the_gpu(model, device, monkeypatch):
    image = model.project_image(see(model, device, monkeypatch))
    ids = torch.zeros((IMAGES * 2, 9), dtype=torch.long, device=GPU)
    keep = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode(False), torch.no_grad():  # as training computes it, padding and all
        logits, features = model.match(ids, keep, image), model.text_features(ids, keep)
    for found, width in ((logits, 2), (features, 16)):
        assert (found.device, found.dtype, found.shape) == (GPU, torch.float32, (IMAGES * 2, width))
