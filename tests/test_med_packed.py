"""Where packed layers suit the machine."""

import pytest
import torch

from capfilt.med import packed
from capfilt.med.packed import PackedLinear, packing_suits, packing_suits_images


@pytest.mark.parametrize(
    ("maker", "dtype", "texts", "images"),
    [
        ("AMD", torch.float32, True, True),
        ("Intel", torch.float32, True, False),
        ("", torch.float32, False, True),
        ("Intel", torch.bfloat16, True, True),
        ("", torch.bfloat16, True, True),
    ],
)
def test_packing_suits_what_torch_is_slower_at(monkeypatch, maker, dtype, texts, images):
    monkeypatch.setattr(packed, "maker", lambda: maker)
    assert (packing_suits.__wrapped__(dtype), packing_suits_images(dtype)) == (texts, images)


def test_packing_never_suits_where_it_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not packing_suits.__wrapped__(torch.bfloat16)


def test_packing_never_suits_where_it_says_something_else(monkeypatch):
    monkeypatch.setattr(PackedLinear, "forward", lambda self, x: x.new_zeros(*x.shape[:-1], 96))
    assert not packing_suits.__wrapped__(torch.bfloat16)
