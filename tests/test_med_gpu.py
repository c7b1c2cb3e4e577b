"""Where a GPU is asked for more than torch's plain operators."""

from contextlib import nullcontext
from subprocess import CalledProcessError
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from capfilt.med import gpu

HALF, SINGLE = torch.bfloat16, torch.float32
TRY_KERNEL = gpu._try_kernel


@pytest.fixture(autouse=True)
def capable(monkeypatch) -> None:
    gpu.kernels_run.cache_clear()
    monkeypatch.setattr(gpu, "_capable", lambda: True)
    monkeypatch.setattr(gpu, "_try_kernel", lambda: None)


def there(dtype: torch.dtype = HALF, head: int = 64) -> Any:
    """What is asked of a tensor, which without a GPU is nowhere."""
    return SimpleNamespace(is_cuda=True, dtype=dtype, shape=(2, 3, 5, head))


@torch.inference_mode()
@pytest.mark.parametrize(
    ("width", "kernels", "varlen"), [(64, True, True), (80, False, True), (12, False, False), (512, False, False)]
)
def test_heads_of_some_widths_alone_are_taken(width, kernels, varlen):
    assert gpu.heads_suit(there(), width) is kernels
    assert gpu.varlen_suits(there(), width) is varlen


@torch.inference_mode()
@pytest.mark.parametrize(("q", "keys", "suits"), [(HALF, HALF, True), (HALF, SINGLE, False), (SINGLE, SINGLE, False)])
def test_queries_and_keys_have_one_type(q, keys, suits):
    """Under autocast they may not: keys come from a cache in the type of the weights."""
    assert gpu.few_suit(there(q), there(keys)) is suits


def test_nothing_is_taken_in_training_or_on_a_cpu():
    assert not gpu.kernels_suit(there())
    assert not gpu.varlen_suits(there(), 64)
    with torch.inference_mode():
        assert gpu.kernels_suit(there())
        assert not gpu.kernels_suit(torch.ones(1))


@torch.inference_mode()
@pytest.mark.parametrize("error", [RuntimeError("no gcc"), CalledProcessError(1, "gcc"), PermissionError("cache")])
def test_without_a_compiler_it_goes_on_and_says_what_to_install(error, monkeypatch, caplog):
    def fail() -> None:
        raise error

    monkeypatch.setattr(gpu, "_try_kernel", fail)
    assert not gpu.kernels_suit(there())
    assert not gpu.kernels_suit(there())
    (record,) = caplog.records
    assert "gcc" in record.getMessage()


@torch.inference_mode()
def test_a_gpu_that_triton_does_not_know_does_without(monkeypatch, caplog):
    pytest.importorskip("triton", reason="Triton comes with torch's builds for GPUs")
    from triton.runtime.errors import PTXASError

    def fail(*_: object) -> None:
        raise PTXASError("Value 'sm_999' is not defined for option 'gpu-name'")

    monkeypatch.setattr(gpu, "_try_kernel", TRY_KERNEL)
    monkeypatch.setattr("capfilt.med.kernels.add_norm", fail)
    with FakeTensorMode():
        assert not gpu.kernels_suit(there())
    assert "PTXASError" in caplog.text


@torch.inference_mode()
@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("Triton Error [CUDA]: out of memory")])
def test_a_full_gpu_is_no_missing_compiler(monkeypatch, error):
    def fail() -> None:
        raise error

    monkeypatch.setattr(gpu, "_try_kernel", fail)
    with pytest.raises(torch.OutOfMemoryError):
        gpu.kernels_suit(there())


def test_an_older_gpu_gets_no_kernels(monkeypatch):
    monkeypatch.setattr(gpu, "_capable", lambda: False)
    with torch.inference_mode():
        assert not gpu.kernels_suit(there())


@pytest.mark.parametrize(("has_it", "told"), [(True, 0), (False, 1)])
def test_a_gpu_without_bfloat16_is_told_once(monkeypatch, caplog, has_it, told):
    gpu.warn_of_emulation.cache_clear()
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: has_it or including_emulation)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Tesla T4")
    for _ in range(2):
        gpu.warn_of_emulation()
    expected = "Tesla T4 has no units for bfloat16 and is slow at it; for a new run set device.dtype: float32"
    assert caplog.messages == [expected] * told


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("torch's own"), RuntimeError("CUDA error: out of memory")])
def test_pixels_for_which_a_gpu_has_no_room_stay_where_they_are(monkeypatch, error):
    def fail(device: str) -> Any:
        raise error

    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(gpu, "_copies", lambda: None)
    there, full = SimpleNamespace(to=lambda device: f"on {device}"), SimpleNamespace(to=fail)
    assert gpu.copy_to_gpu(there) == "on cuda"  # type: ignore[arg-type]
    assert gpu.copy_to_gpu(full) is full  # type: ignore[arg-type]


@torch.inference_mode()
@pytest.mark.parametrize(("words", "k", "suits"), [(640, 9, True), (640, 10, False), (640, 0, False), (650, 5, False)])
def test_chunks_are_whole_and_more_than_tokens_to_keep(words, k, suits):
    logits = SimpleNamespace(is_cuda=True, shape=(2, words))
    assert gpu.chunks_suit(logits, k) is suits  # type: ignore[arg-type]
