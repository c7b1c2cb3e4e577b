"""What the models ask of a GPU, seen without one."""

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from models import sample, small_config
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only
from without_gpu import GPU, Watch, pin, to_gpu

from capfilt.captioners.med import MEDCaptioner
from capfilt.config import Device, FilterSettings, Sampling
from capfilt.evaluation.retrieval import Texts, text_features
from capfilt.filters.med import MEDFilter
from capfilt.med import gpu
from capfilt.med.attention import KeysValues
from capfilt.med.decoding import DecodingState
from capfilt.med.generation import CaptionGenerator
from capfilt.med.graphs import GraphRunner
from capfilt.med.image_encoder import ImageEncoder
from capfilt.med.inference import convert_layers, on_device
from capfilt.med.model import MED
from capfilt.med.unpadded import UnpaddedTexts

VOCABULARY, IMAGES = 300, 3


@pytest.fixture(params=["bfloat16", "float32"])
def device(request) -> Device:
    return Device(kind="cuda", dtype=request.param, linear="plain")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture(params=[True, False], ids=["flash", "older"])
def flash(request, monkeypatch) -> None:
    """A GPU that takes texts without padding, or one that does not. Neither has a compiler for kernels here."""
    monkeypatch.setattr(gpu, "_capable", lambda: request.param)
    monkeypatch.setattr(gpu, "kernels_run", lambda: False)


@pytest.fixture
def model(device, watch, flash, monkeypatch) -> Iterator[MED]:
    """A model on a GPU, shaped as ready does it, without values; everything else is then without values, too.

    How texts are laid out, which follows from values on the host, is known: 9, 4 and 9 tokens of texts of the first
    image, 2, 9 and 9 of the last.
    """
    texts = torch.zeros((6, 9), dtype=torch.long), torch.arange(9) < torch.tensor([9, 4, 9, 2, 9, 9])[:, None]  # (R, L)
    owners = torch.tensor([0, 0, 0, 2, 2, 2])
    known = {"of": UnpaddedTexts.of(*texts, owners, IMAGES), "varlen": UnpaddedTexts.varlen(*texts, owners, IMAGES, 17)}
    with torch.device("meta"):
        model = convert_layers(MED(small_config(VOCABULARY)).eval(), device)
    with FakeTensorMode() as mode, torch.inference_mode():
        to_gpu(model)
        for name, unpadded in known.items():
            without_values = tree_map_only(Tensor, mode.from_tensor, unpadded)
            monkeypatch.setattr(UnpaddedTexts, name, partial(lambda found, *_: found, without_values))
        monkeypatch.setattr(Tensor, "pin_memory", pin)
        with watch:
            yield model


def see(model: MED, device: Device) -> Tensor:
    pixels = torch.zeros((IMAGES, 3, 32, 32), dtype=torch.uint8)
    return model.encode_image(on_device(pixels, device))  # (B, M, D)


def write(model: MED, image: list[KeysValues], **settings: object) -> Tensor:
    chosen = Sampling.model_validate({"captions": 2, **settings})
    noise = torch.zeros((IMAGES * chosen.captions, chosen.max_length), dtype=torch.float64, device=GPU)
    return sample(model, image, [5, 6, 7], 2, chosen, noise).ids  # (R, T)


def test_images_are_seen_on_the_gpu_in_the_type_of_the_products(model, device, watch):
    image = see(model, device)
    assert (image.device, image.dtype) == (GPU, getattr(torch, device.dtype))
    for tensor in (tensor for pair in model.project_image(image) for tensor in pair):
        assert (tensor.device, tensor.dtype, tensor.shape) == (GPU, image.dtype, (IMAGES, 2, 17, 16))
    assert (model.image_features(image).device, model.image_features(image).dtype) == (GPU, torch.float32)
    assert watch.waits == []


def test_only_the_copy_of_pixels_is_waited_for_as_their_memory_may_go_while_a_step_is_captured(model, device, watch):
    encoder = ImageEncoder(model, device)
    encoder._runner = GraphRunner(encoder._see, None)
    image = encoder(pin(torch.zeros((IMAGES, 3, 32, 32), dtype=torch.uint8)))
    assert (image.device, image.dtype) == (GPU, getattr(torch, device.dtype))
    assert watch.waits == ["to"]


def test_texts_are_read_on_the_gpu_without_waiting_for_it(model, device, watch):
    image = model.project_image(see(model, device))
    ids, keep = torch.zeros((6, 9), dtype=torch.long), torch.ones((6, 9), dtype=torch.bool)
    unpadded = model.unpad(ids, keep, torch.zeros(6, dtype=torch.long), IMAGES, 17)
    logits = model.itm_head(model.text.first_states(unpadded, image))[:6]
    features = model.features(model.text.first_states(unpadded))[:6]
    for found, width in ((logits, 2), (features, 16)):
        assert (found.device, found.dtype, found.shape) == (GPU, torch.float32, (6, width))
    assert watch.waits == []


def test_texts_of_a_retrieval_are_laid_out_on_the_host_and_waited_for_once(model, device, watch):
    judge = SimpleNamespace(model=model, device=device)
    texts = Texts(torch.zeros((6, 9), dtype=torch.long), torch.ones((6, 9), dtype=torch.bool))
    features = text_features(judge, texts, 6)
    assert (features.device.type, features.shape) == ("cpu", (6, 16))
    assert watch.waits == ["cpu"]


@pytest.mark.parametrize("itc", [True, False])
def test_what_the_filter_captures_does_not_wait(model, device, watch, itc):
    judge = object.__new__(MEDFilter)  # a checkpoint has values
    judge.model, judge.device, judge.settings = model, device, FilterSettings(itc=itc)
    judge.tokenizer = SimpleNamespace(cls=2)
    ids, keep = torch.zeros((6, 9), dtype=torch.long), torch.ones((6, 9), dtype=torch.bool)
    unpadded = model.unpad(ids, keep, torch.zeros(6, dtype=torch.long), IMAGES, 17)
    scores = judge._judge(judge._project(see(model, device)), unpadded)
    assert (scores.device, scores.dtype, scores.shape[1]) == (GPU, torch.float32, 1 + itc)
    assert watch.waits == []


def test_what_the_captioner_captures_does_not_wait(model, device, watch):
    captioner = object.__new__(MEDCaptioner)
    captioner.model, captioner.device = model, device
    captioner._generator = CaptionGenerator(model, [5, 6, 7], 2, Sampling(captions=2))
    captioner._runner = GraphRunner(captioner._begin, lambda: None)
    state = captioner._begin(see(model, device), torch.zeros((IMAGES * 2, 20), dtype=torch.float64, device=GPU))
    captioner._generator.go_on(state, range(4, 8))
    assert state.fixed
    assert (state.ids.device, state.ids.shape) == (GPU, (IMAGES * 2, 20))
    assert watch.waits == []


@pytest.mark.parametrize(
    "settings", [{}, {"top_k": 10}, {"top_k": 0}, {"top_p": 1.0}, {"temperature": 0.7, "min_length": 9}]
)
def test_between_two_looks_no_token_makes_the_host_wait(model, device, watch, monkeypatch, settings):
    looks: list[int] = []
    monkeypatch.setattr(DecodingState, "shrink", lambda self, step: looks.append(step) or True)
    ids = write(model, model.project_image(see(model, device)), **settings)
    assert (ids.device, ids.shape) == (GPU, (IMAGES * 2, 20))
    assert looks == [4, 8, 12, 16]
    assert watch.waits == []
