"""Image tokens of a batch, computed once for two models that share a vision tower.

Shapes: B images, S side of the input, M image tokens, D width of the tower.
"""

from collections.abc import MutableMapping

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from capfilt.config import Device
from capfilt.med.graphs import graph_runner
from capfilt.med.inference import on_device
from capfilt.med.model import MED
from capfilt.memory import InParts

ImageCache = MutableMapping[Tensor, Tensor]
"""Image tokens, keyed by the tensor of pixels that they come from, of batches that only one of two models has read."""


def image_cache() -> ImageCache:
    """Return a cache in which two models with one tower leave image tokens for each other, while the pixels live."""
    return WeakTensorKeyDictionary()


class ImageEncoder:
    """A model's vision tower, on its device."""

    def __init__(self, model: MED, device: Device, cache: ImageCache | None = None) -> None:
        """Take a model that is ready on a resolved device and, if another has the same tower, the cache they share."""
        self._model, self._device, self._cache = model, device, cache
        self._in_parts = InParts(self._encode)
        self._runner = graph_runner(self._see, device.kind)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the image tokens, float (B, M, D), of pixels, uint8 (B, 3, S, S)."""
        if self._cache is not None and (found := self._cache.pop(pixels, None)) is not None:
            return found
        parts = self._in_parts(pixels)
        image = parts[0] if len(parts) == 1 else torch.cat(parts)  # (B, M, D)
        if self._cache is not None:
            self._cache[pixels] = image
        return image

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        """Return a list of one tensor, the image tokens (B, M, D) of a part of a batch, pixels (B, 3, S, S)."""
        # The host waits for this copy. Else torch would note the stream on the pinned pixels and query it when they are
        # freed, which a thread that is done with a batch may do while another one captures.
        image = self._runner.start(pixels.to(self._device.kind))  # (B, M, D)
        return [image.clone()]  # the graph's own tensor is overwritten by the next part or batch

    def _see(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, S, S) to image tokens (B, M, D)."""
        return self._model.encode_image(on_device(pixels, self._device))
