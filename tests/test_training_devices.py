"""What the settings of a training's device come to."""

import pytest
import torch

from capfilt.config.training import TrainingDevice
from capfilt.errors import ConfigError
from capfilt.training.devices import precision


@pytest.fixture(autouse=True)
def as_it_was():
    before = torch.get_num_threads(), torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(before[0])
    torch.backends.cuda.enable_cudnn_sdp(before[1])
    torch.backends.cudnn.allow_tf32 = before[2]


@pytest.mark.parametrize(
    ("there", "units", "kind", "dtype", "expected"),
    [
        (False, False, "auto", "auto", ("cpu", torch.float32)),
        (False, False, "auto", "bfloat16", ("cpu", torch.bfloat16)),
        (True, True, "auto", "auto", ("cuda", torch.bfloat16)),
        (True, False, "auto", "auto", ("cuda", torch.float32)),
        (True, True, "auto", "float32", ("cuda", torch.float32)),
        (True, True, "cpu", "auto", ("cpu", torch.float32)),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_and_bfloat16_where_it_has_that(
    monkeypatch, there, units, kind, dtype, expected
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: there)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: units or including_emulation)
    assert precision(TrainingDevice(kind=kind, dtype=dtype)) == (torch.device(expected[0]), expected[1])


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device\.kind: cuda, but torch sees no GPU here; set device\.kind: cpu"):
        precision(TrainingDevice(kind="cuda"))


def test_threads_are_set_where_a_number_is_given():
    torch.set_num_threads(1)
    precision(TrainingDevice(kind="cpu", threads=2))
    assert torch.get_num_threads() == 2
    precision(TrainingDevice(kind="cpu"))
    assert torch.get_num_threads() == 2


def test_attention_does_without_cudnn():
    torch.backends.cuda.enable_cudnn_sdp(True)
    precision(TrainingDevice(kind="cpu"))
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_convolutions_do_not_round_float32():
    torch.backends.cudnn.allow_tf32 = True
    precision(TrainingDevice(kind="cpu"))
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_are_in_the_type_of_a_precision_and_sums_stay_in_float32(dtype):
    found = precision(TrainingDevice(kind="cpu", dtype=str(dtype).removeprefix("torch.")))
    x = torch.ones(2, 2)
    with found.autocast():
        assert (x @ x).dtype == dtype
        assert (x + x).dtype == torch.float32
