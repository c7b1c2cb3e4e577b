"""What a GPU can do beyond torch's plain operators, and when that can be used."""

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from subprocess import SubprocessError

import torch
from torch import Tensor

from capfilt.med.ragged import Varlen
from capfilt.med.sampling import CHUNK
from capfilt.memory import out_of_memory_told

MIN_CAPABILITY = (8, 0)  # the least compute capability on which flash attention and Triton run
MIN_HEAD_WIDTH, MAX_HEAD_WIDTH = 16, 256  # widths of a head that matrix units and flash attention take

logger = logging.getLogger(__name__)


def kernels_suit(x: Tensor) -> bool:
    """Return whether the kernels of kernels.py may take x: in inference, on a GPU where they can be compiled."""
    return x.is_cuda and torch.is_inference_mode_enabled() and kernels_run()


@cache
def kernels_run() -> bool:
    """Return whether kernels can be compiled and loaded here; this is tried once.

    Triton needs a C compiler, which a slim container may lack; everything works without kernels, but slower.

    Raises:
        torch.OutOfMemoryError: there is no memory for a kernel. Triton does not load it again in this process.
    """
    if not _capable():
        return False
    try:
        with out_of_memory_told():
            _try_kernel()
    except torch.OutOfMemoryError:  # which says nothing about the compiler
        raise
    except (ImportError, OSError, RuntimeError, SubprocessError) as error:
        logger.warning(
            "Triton cannot compile kernels here; models are slower without, and round otherwise than on workers with "
            "them: %s. Install a C compiler (gcc) and Python's headers",
            error,
        )
        return False
    return True


def heads_suit(x: Tensor, width: int) -> bool:
    """Return whether the attention kernels may take x with heads of this width, which must be a power of 2."""
    return MIN_HEAD_WIDTH <= width <= MAX_HEAD_WIDTH and width.bit_count() == 1 and kernels_suit(x)


def few_suit(q: Tensor, keys: Tensor) -> bool:
    """Return whether the kernel for few queries an image may take q and keys: in bfloat16, as its products are."""
    return q.dtype == keys.dtype == torch.bfloat16 and heads_suit(q, keys.shape[-1])


def chunks_suit(logits: Tensor, k: int) -> bool:
    """Return whether the top-k kernels may take logits (R, V); they cannot for k = 0, which stands for all tokens."""
    words = logits.shape[1]
    return 0 < k * CHUNK < words and words % CHUNK == 0 and kernels_suit(logits)


def varlen_suits(x: Tensor, width: int) -> bool:
    """Return whether attention with heads of this width may take x unpadded: in bfloat16, on a capable GPU."""
    fits = width % 8 == 0 and width <= MAX_HEAD_WIDTH and x.dtype == torch.bfloat16
    return fits and x.is_cuda and torch.is_inference_mode_enabled() and _capable()


def keep_float32() -> None:
    """Make a GPU's convolutions keep float32, as its matrix products do: by default they round it to ten bits."""
    torch.backends.cudnn.allow_tf32 = False


@cache
def warn_of_emulation() -> None:
    """Warn, once a process, if the GPU only emulates bfloat16, as a T4 does."""
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        logger.warning("%s has no units for bfloat16 and is slow at it; for a new run set device.dtype: float32", name)


def own_stream(kind: str, urgent: bool = False) -> AbstractContextManager[object]:
    """Return a reusable context that gives work on a GPU a stream of its own, so that it waits for no other's.

    Urgent work goes ahead of work that waits in other streams. On a CPU the context does nothing.
    """
    if kind == "cpu":
        return nullcontext()
    stream = torch.cuda.Stream(priority=-1 if urgent else 0)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.default_stream())  # on which the weights are copied
    return torch.cuda.stream(stream)


def copy_to_gpu(pixels: Tensor) -> Tensor:
    """Copy pixels from pinned memory to the GPU, and wait for the copy, so that any stream may read them.

    If there is no room, they are returned as they are, and a model copies a part at a time.
    """
    try:
        with out_of_memory_told(), torch.cuda.stream(_copies()):
            return pixels.to("cuda")
    except torch.OutOfMemoryError:
        return pixels


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; on a GPU the copy is queued after earlier work, and not waited for."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # a copy from unpinned memory may wait
    return tensor.to(device, non_blocking=True)


def varlen_attention(q: Tensor, keys: Tensor, values: Tensor, varlen: Varlen) -> Tensor:
    """Return softmax(q keys^T / sqrt(K)) values within each group, (T, H, K).

    Args:
        q: (T, H, K), the queries of all G groups, one group after the other.
        keys: (S, H, K), likewise.
        values: (S, H, K).
        varlen: where the groups lie.
    """
    # The public torch.nn.attention.varlen does the same from torch 2.10 on, but costs the host more time for each call.
    cu_seqlens, max_seqlen = zip(*varlen, strict=True)
    attend = torch.ops.aten._flash_attention_forward
    return attend(q, keys, values, *cu_seqlens, *max_seqlen, 0.0, False, False)[0]  # type: ignore[no-any-return]


@cache
def _copies() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@cache
def _capable() -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability() >= MIN_CAPABILITY


def _try_kernel() -> None:
    from triton.errors import TritonError

    from capfilt.med import kernels

    one = torch.ones((1, 16), device="cuda")
    try:
        kernels.add_norm(one, one, one[0], one[0], 1e-6, None, torch.empty_like(one))
    except TritonError as error:  # for example when the GPU is newer than Triton's assembler
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
