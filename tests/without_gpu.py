"""A GPU without one: tensors that have a device and a shape and no values, and a watch on what is asked of them.

Such tensors refuse a product of tensors on two devices, and a shape or a branch that depends on values, for which the
host would wait. A watch refuses products of two types, which a GPU has not, and notes copies that the host waits for:
a GPU reads pinned memory behind the work that it has, other memory only when that is done.
"""

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

GPU = torch.device("cuda:0")
PRODUCTS = (
    "linear",
    "_addmm_activation",
    "matmul",
    "__matmul__",
    "conv2d",
    "layer_norm",
    "scaled_dot_product_attention",
)
COPIES = ("to", "cpu", "cuda", "tensor", "tolist", "item")


class Watch(TorchFunctionMode):
    """Notes the copies that the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        tensors = [each for each in args if isinstance(each, Tensor)]
        if name in PRODUCTS and not torch.is_autocast_enabled("cuda"):
            kinds = {each.dtype for each in tensors if each.is_floating_point()}
            assert len(kinds) == 1, f"{name} of {kinds}"
        result = func(*args, **kwargs)
        came_from = tensors[0] if tensors else torch.empty(0)
        moved = name in COPIES and getattr(result, "device", came_from.device) != came_from.device
        if moved and not (kwargs.get("non_blocking") and hasattr(came_from, "pinned")):
            self.waits.append(name)
        return result


def pin(tensor: Tensor) -> Tensor:
    """Stand for Tensor.pin_memory, which needs a driver."""
    copy = tensor.clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy


def to_gpu(module: nn.Module) -> dict[Tensor, nn.Parameter]:
    """Put parameters and buffers without values on the GPU, in the place of a module's; return the new by the old.

    They get no gradient: autograd asks a driver for streams.
    """
    found: dict[Tensor, nn.Parameter] = {}
    for part in module.modules():
        for name, old in list(part.named_parameters(recurse=False)):
            if old not in found:
                there = torch.empty(old.shape, dtype=old.dtype, device=GPU)
                found[old] = nn.Parameter(there, requires_grad=False)
            setattr(part, name, found[old])
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=GPU))
    return found
