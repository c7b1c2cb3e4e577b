"""What a GPU can do beyond torch's plain operators, and where it may be asked for."""

import logging
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from subprocess import SubprocessError

import torch
from torch import Tensor

from capfilt.med.ragged import Listed
from capfilt.med.sampling import CHUNK
from capfilt.memory import out_of_memory_told

CAPABLE = (8, 0)  # compute capability from which on flash attention and Triton run
LEAST_HEAD, MOST_HEAD = 16, 256  # width of a head that matrix units and flash attention take

logger = logging.getLogger(__name__)


def kernels_suit(x: Tensor) -> bool:
    """Return whether the kernels of kernels.py may take x: in inference, on a GPU where they can be compiled."""
    return x.is_cuda and torch.is_inference_mode_enabled() and kernels_run()


@cache
def kernels_run() -> bool:
    """Return whether kernels can be compiled and loaded here, which is tried once.

    Triton needs a C compiler, which a slim container may lack; all of it works without, slower.

    Raises:
        torch.OutOfMemoryError: there is no memory for one. Triton does not load it in this process again.
    """
    if not _capable():
        return False
    try:
        with out_of_memory_told():
            _try_kernel()
    except torch.OutOfMemoryError:  # which says nothing of compilers
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
    """Return whether those for attention may take x with heads of a width: a power of 2."""
    return LEAST_HEAD <= width <= MOST_HEAD and width.bit_count() == 1 and kernels_suit(x)


def few_suit(q: Tensor, keys: Tensor) -> bool:
    """Return whether that for a few queries of each image may take q and keys: in bfloat16, as its products are."""
    return q.dtype == keys.dtype == torch.bfloat16 and heads_suit(q, keys.shape[-1])


def chunks_suit(logits: Tensor, k: int) -> bool:
    """Return whether those for the k likeliest tokens may take logits (R, V): 0 stands for all of them."""
    words = logits.shape[1]
    return 0 < k * CHUNK < words and words % CHUNK == 0 and kernels_suit(logits)


def lists_suit(x: Tensor, width: int) -> bool:
    """Return whether attention with heads of a width may take x in lists: in bfloat16, on a GPU of some years."""
    fits = width % 8 == 0 and width <= MOST_HEAD and x.dtype == torch.bfloat16
    return fits and x.is_cuda and torch.is_inference_mode_enabled() and _capable()


def keep_float32() -> None:
    """Let a GPU's convolutions take float32 as it is, as its products do: by default it is rounded to ten bits."""
    torch.backends.cudnn.allow_tf32 = False


@cache
def warn_of_emulation() -> None:
    """Warn, once in a process, of a GPU that computes bfloat16 by other types, such as a T4."""
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        logger.warning("%s has no units for bfloat16 and is slow at it; for a new run set device.dtype: float32", name)


def own_stream(kind: str, urgent: bool = False) -> AbstractContextManager[object]:
    """Return a block, which can be entered again and again, whose work on a GPU waits for no other block's.

    Urgent work goes before that of other streams where it has come to wait. On a CPU the block does nothing.
    """
    if kind == "cpu":
        return nullcontext()
    stream = torch.cuda.Stream(priority=-1 if urgent else 0)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.default_stream())  # which brings the weights there
    return torch.cuda.stream(stream)


def arrived(pixels: Tensor) -> Tensor:
    """Return pixels of pinned memory in that of a GPU, for work on any stream: the host has waited for the copy.

    Where there is no room they stay what they are, and a model takes a part at a time.
    """
    try:
        with out_of_memory_told(), torch.cuda.stream(_copies()):
            return pixels.to("cuda")
    except torch.OutOfMemoryError:
        return pixels


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to a device; a GPU gets it behind the work it has, and is not waited for."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # a copy from other memory may wait
    return tensor.to(device, non_blocking=True)


def listed_attention(q: Tensor, keys: Tensor, values: Tensor, listed: Listed) -> Tensor:
    """Return softmax(q keys^T / sqrt(K)) values within each group, (T, H, K).

    Args:
        q: (T, H, K), the queries of all G groups, one group behind the other.
        keys: (S, H, K), likewise.
        values: (S, H, K).
        listed: where the groups lie.
    """
    # The public torch.nn.attention.varlen says the same from torch 2.10 on, and takes the host longer for each call.
    cu_seqlens, max_seqlen = zip(*listed, strict=True)
    attend = torch.ops.aten._flash_attention_forward
    return attend(q, keys, values, *cu_seqlens, *max_seqlen, 0.0, False, False)[0]  # type: ignore[no-any-return]


@cache
def _copies() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


@cache
def _capable() -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability() >= CAPABLE


def _try_kernel() -> None:
    from triton.errors import TritonError

    from capfilt.med import kernels

    one = torch.ones((1, 16), device="cuda")
    try:
        kernels.add_norm(one, one, one[0], one[0], 1e-6, None, torch.empty_like(one))
    except TritonError as error:  # such as of a GPU that is newer than its assembler
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
