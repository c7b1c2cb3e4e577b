"""How many operations the work takes, how many the machine can do, and in which stage the time goes.

Operations are those that are needed, not those that are done: an image encoded and projected once for each model, the
prompt read once for each image, the last block of a scored text for its first token alone. A multiplication and an
addition count as two.

Shapes: M image tokens, D width, F inner width of the MLP, V vocabulary, L tokens of a text.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function
from versus_sides import LENGTH, NEW

from capfilt.config.sizes import MEDConfig
from capfilt.med.model import MED

CALL = "the call that is traced"


def captioner_work(config: MEDConfig, n: int) -> dict[str, float]:
    """Return the operations of n captions of one image, by stage."""
    prompt = LENGTH - NEW
    tokens = [(prompt, prompt)] + [(1, seen) for seen in range(prompt + 1, LENGTH)] * n  # (new, seen with the new)
    decode = sum(_block(config, new, new * seen, new) for new, seen in tokens) * config.text.depth
    return {**image_work(config), "text": decode + n * NEW * _head(config)}


def filter_work(config: MEDConfig, lengths: Sequence[int]) -> dict[str, float]:
    """Return the operations of P(match) of texts of so many tokens with one image, by stage."""
    return {**image_work(config), "text": sum(_text(config, length) for length in lengths)}


def image_work(config: MEDConfig) -> dict[str, float]:
    """Return the operations of encoding an image and of projecting it to keys and values for all text blocks."""
    vision, text = config.vision, config.text
    count = _image_tokens(config)
    patches = 2 * (count - 1) * 3 * vision.patch_size**2 * vision.width
    linear, attention = 2 * count * 12 * vision.width**2, 4 * count**2 * vision.width
    return {
        "vision": patches + vision.depth * (linear + attention),
        "keys": text.depth * 2 * count * vision.width * 2 * text.width,
    }


def _text(config: MEDConfig, length: int) -> float:
    whole = _block(config, length, length * length, length)
    width, inner = config.text.width, config.text.mlp_width
    last = 2 * (length * 2 * width**2 + 2 * width**2 + 2 * width * inner) + 4 * length * width
    last += 4 * width**2 + 4 * _image_tokens(config) * width
    return (config.text.depth - 1) * whole + last


def _block(config: MEDConfig, tokens: int, pairs: int, crossing: int) -> float:
    """Return the operations of a text block: for tokens, pairs that self-attend, and tokens that look at the image."""
    width, inner = config.text.width, config.text.mlp_width
    own = 2 * tokens * (4 * width**2 + 2 * width * inner) + 4 * pairs * width
    return own + crossing * (4 * width**2 + 4 * _image_tokens(config) * width)


def _head(config: MEDConfig) -> float:
    return 2 * (config.text.width**2 + config.text.width * config.text.vocabulary)


def _image_tokens(config: MEDConfig) -> int:
    return 1 + (config.vision.image_size // config.vision.patch_size) ** 2


def matrix_rates(
    config: MEDConfig, device: str, dtypes: Sequence[str], repeats: int = 7
) -> dict[str, dict[str, float]]:
    """Return the operations a second of single products, the median of a few: what a stage can be held against.

    On CPUs they are those of the vision tower's MLP for one image and for four, plain and packed; on GPUs a large one.
    """
    width, products = config.vision.width, {"F.linear": _plain}
    shapes = [(images * _image_tokens(config), width, 4 * width) for images in (1, 4)]
    if device == "cuda":
        shapes = [(8192, 8192, 8192)]
    elif hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        products["packed oneDNN"] = _packed
    rates: dict[str, dict[str, float]] = {}
    for dtype, (name, make), shape in itertools.product(dtypes, products.items(), shapes):
        rows, inputs, outputs = shape
        x, weight = (torch.randn(size, inputs).to(device, getattr(torch, dtype)) for size in (rows, outputs))
        rate = 2 * rows * inputs * outputs / _seconds(make(x, weight), device, repeats)
        rates.setdefault(dtype, {})[f"{name} {rows}x{inputs}x{outputs}"] = rate
    return rates


def _plain(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    return lambda: F.linear(x, weight)


def _packed(x: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight, len(x))
    return lambda: torch.ops.mkldnn._linear_pointwise(x, ordered, None, "none", [], "")


@torch.inference_mode()
def _seconds(product: Callable[[], object], device: str, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 2):  # the first two warm up
        wait(device)
        start = time.perf_counter()
        product()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds[2:])


def wait(device: str) -> None:
    """Let the device finish."""
    if device == "cuda":
        torch.cuda.synchronize()


class Operation(NamedTuple):
    """One operator as torch's profiler saw it, not those inside it."""

    name: str
    shapes: list[list[int]]
    start: float  # microseconds
    end: float


def profile_stages(call: Callable[[], object], vocabulary: int, repeats: int = 2) -> dict[str, float]:
    """Return the seconds of each stage of a call: of the quickest of a few, after one that warms up."""
    call()
    return min((stages(trace(call), vocabulary) for _ in range(repeats)), key=lambda found: sum(found.values()))


def subtract_stages(model: MED, pixels: Tensor, call: Callable[[], object], repeats: int = 5) -> dict[str, float]:
    """Return the seconds of each stage of a call, where a GPU runs behind the operators that a trace sees.

    What looks at the image is timed by itself, so the batch has to be large enough for launches not to count. What the
    call takes beyond that is text: pixels copied, texts made of tokens or tokens of texts, words chosen.
    """
    with torch.inference_mode():
        image = model.encode_image(pixels)  # (B, M, D)
    parts = {"vision": lambda: model.encode_image(pixels), "keys": lambda: model.project_image(image)}
    found = {stage: _seconds(part, pixels.device.type, repeats) for stage, part in parts.items()}
    return {**found, "text": _seconds(call, pixels.device.type, repeats) - sum(found.values())}


def trace(call: Callable[[], object]) -> list[Operation]:
    """Return the operators of a call in order; the first stands for the call as a whole."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler, record_function(CALL):
        call()
    events = sorted(profiler.events(), key=lambda event: event.time_range.start)
    whole = next(event for event in events if event.name == CALL)
    return [_operation(event) for event in events if event is whole or event.cpu_parent is whole]


def _operation(event: FunctionEvent) -> Operation:
    return Operation(event.name, event.input_shapes, event.time_range.start, event.time_range.end)


def stages(operations: list[Operation], vocabulary: int) -> dict[str, float]:
    """Cut a call into stages, in seconds, at what every such model does.

    Vision ends with the last layer norm before the first word is looked up, keys (all that stands between) with that
    look-up. Sampling lasts from each product with the vocabulary to the next look-up. The rest is text.
    """
    whole, *inner = operations
    words = [op.start for op in inner if op.name == "aten::embedding"]
    seen = max(op.end for op in inner if op.name.endswith("layer_norm") and op.start < words[0])
    heads = [op for op in inner if _is_product(op) and any(vocabulary in shape for shape in op.shapes)]
    after = [min((word for word in words if word >= op.end), default=whole.end) - op.end for op in heads]
    cut = {"vision": seen - whole.start, "keys": words[0] - seen, "text": whole.end - words[0] - sum(after)}
    cut |= {"sampling": sum(after)} if heads else {}
    return {stage: microseconds / 1e6 for stage, microseconds in cut.items()}


def _is_product(operation: Operation) -> bool:
    return any(part in operation.name for part in ("linear", "matmul", "addmm", "::mm"))
