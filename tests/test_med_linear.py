"""Packed layers say what plain ones say."""

from copy import deepcopy

import pytest
import torch
from models import lively_checkpoint
from torch import nn

from capfilt.config import Device
from capfilt.med.inference import convert_layers, round_products
from capfilt.med.linear import replace_linear
from capfilt.med.model import MED
from capfilt.med.packed import PackedLinear


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> MED:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path_factory.mktemp("med")).model.requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gelu", [True, False])
def test_a_layer_is_the_product_with_its_activation(bias, gelu):
    torch.manual_seed(0)
    layer = nn.Linear(24, 40, bias)
    x = torch.randn(3, 7, 24)
    expected = nn.functional.gelu(layer(x)) if gelu else layer(x)

    found = PackedLinear(layer.weight, layer.bias, gelu)(x)

    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-6)


@torch.inference_mode()
def test_a_packed_model_says_what_it_said(plain):
    packed = deepcopy(plain)
    replace_linear(packed, "cpu", packed=True)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(5, 20, (4, 6), generator=torch.Generator().manual_seed(1))
    keep = torch.ones_like(ids, dtype=torch.bool)

    def said(model: MED) -> list[torch.Tensor]:
        image = model.encode_image(images)
        projected = model.project_image(image)
        features = [model.image_features(image), model.text_features(ids, keep)]
        return [image, *features, model.match(ids, keep, projected), model.decode(ids, projected)]

    for found, expected in zip(said(packed), said(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stem", ["patch", "conv"])
@torch.inference_mode()
def test_a_model_in_the_form_for_a_gpu_says_what_it_said(plain, stem):
    """All of it but the kernels works on a CPU, where an activation within a product is exact."""
    config = plain.config.model_copy(update={"vision": plain.config.vision.model_copy(update={"stem": stem})})
    model = MED(config).initialise(0).eval()
    shaped = convert_layers(deepcopy(model), Device(kind="cuda", dtype="bfloat16", linear="plain"))
    shaped = convert_layers(shaped, Device(kind="cuda", dtype="bfloat16", linear="plain"))  # as for a second use of it
    rounded = round_products(model) or model
    replace_linear(rounded, "cpu", packed=False)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    ids = torch.randint(5, 20, (4, 6), generator=torch.Generator().manual_seed(1))
    keep = torch.ones_like(ids, dtype=torch.bool)

    def said(model: MED) -> list[torch.Tensor]:
        image = model.encode_image(images)
        projected = model.project_image(image)
        return [image, model.text_features(ids, keep), model.match(ids, keep, projected), model.decode(ids, projected)]

    for found, expected in zip(said(shaped), said(rounded), strict=True):
        torch.testing.assert_close(found[..., : expected.shape[-1]], expected, rtol=0, atol=2e-2)
    logits = said(shaped)[-1]
    assert logits.shape[-1] % 64 == 0
    assert logits[..., len(plain.text.embeddings.words.weight) :].isneginf().all()


def test_no_linear_layer_and_no_second_activation_is_left(plain):
    packed = deepcopy(plain)
    replace_linear(packed, "cpu", packed=True)
    assert not [name for name, module in packed.named_modules() if isinstance(module, nn.Linear | nn.GELU)]
    assert isinstance(packed.text.head.words, PackedLinear)
