"""Momentum: slow copies of the encoders, and queues of the features they gave. Nothing else knows of either.

Shapes: B pairs of this rank's batch, N of all ranks', Q entries of a queue, E projection width, L tokens, S pixels.
Source: BLIP, arXiv 2201.12086, section 3.2, after ALBEF, arXiv 2107.07651; order of events as in the original code.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from capfilt.config.momentum import MomentumSettings
from capfilt.errors import CheckpointError
from capfilt.med.losses import distilled_loss, similarities
from capfilt.med.model import MED
from capfilt.med.published import fit_positions, translate
from capfilt.med.weights import load_tensors
from capfilt.storage import staged

MOMENTUM = "momentum.safetensors"  # in the folder of a pre-training checkpoint
NOBODY = -100  # the image number of a queue entry that belongs to no image
QUEUES = {  # the original's names; the pointer has one in pre-training and another in retrieval
    "image_queue": "image_queue",
    "text_queue": "text_queue",
    "idx_queue": "images",
    "queue_ptr": "pointer",
    "ptr_queue": "pointer",
}
COPIED = re.compile(r"(visual_encoder|vision_proj|text_encoder|text_proj)_m\.")
READ_BY_ITC = {"encoder_attn", "mlp"}  # of a text block


class Features(NamedTuple):
    """Contrastive features of images and texts, each of length 1."""

    image: Tensor  # (B, E)
    text: Tensor  # (R, E)


class Momentum(nn.Module):
    """What ITC compares with beyond its own batch; its parameters follow the model's and get no gradient."""

    image_queue: Tensor  # (E, Q), columns of length 1
    text_queue: Tensor  # (E, Q), the text of column q belongs to the image of column q
    images: Tensor  # int64 (Q,), image numbers of the columns
    pointer: Tensor  # int64 (), the column that is replaced next

    def __init__(self, model: MED, settings: MomentumSettings, seed: int) -> None:
        super().__init__()
        self.settings = settings
        self.copy = _encoders(model)
        # A parameter stays the same object when its module moves to a device or loads a state.
        self._slow = list(self.copy.parameters())
        self._online = [model.get_parameter(name) for name, _ in self.copy.named_parameters()]
        self._average = get_ema_multi_avg_fn(settings.decay)  # type: ignore[no-untyped-call]  # one fused lerp
        self._moved: float | None = None
        generator = torch.Generator().manual_seed(seed)
        for name in ("image_queue", "text_queue"):
            entries = torch.randn(model.config.projection, settings.queue, generator=generator)  # (E, Q)
            self.register_buffer(name, F.normalize(entries, dim=0))
        self.register_buffer("images", torch.full((settings.queue,), NOBODY))
        self.register_buffer("pointer", torch.tensor(0))

    def alpha(self, done: float) -> float:
        """Return the weight of the copies' similarities in the targets, after a share `done` of the steps."""
        ramp = self.settings.alpha_ramp
        return self.settings.alpha * (min(1.0, done / ramp) if ramp else 1.0)

    def follow(self, done: float) -> None:
        """Move the copies towards the model, once a step: batches with the same `done` are of one step and share it."""
        if done != self._moved:
            self._average(self._slow, self._online, 0)
            self._moved = done

    @torch.no_grad()
    def features(self, pixels: Tensor, ids: Tensor, keep: Tensor) -> Features:
        """Return the copies' features of normalised images (B, 3, S, S) and texts (B, L)."""
        images = self.copy.image_features(self.copy.encode_image(pixels))  # (B, E)
        return Features(images.float(), self.copy.text_features(ids, keep).float())

    def with_queue(self, images: Tensor) -> Tensor:
        """Return the image numbers (B + Q,) that contrast compares with: the batch's own (B,), then the queue's."""
        return torch.cat([images, self.images])

    def contrast(self, online: Features, slow: Features, temperature: Tensor, positive: Tensor, done: float) -> Tensor:
        """Return ITC of the online features against the slow ones of the same batch and the queues.

        positive, bool (B, B + Q), is True for true pairs. Other ranks' features arrive one step later, through the
        queues.
        """
        # New tensors, so that enqueuing does not change what the gradient is computed from.
        images = torch.cat([slow.image.T, self.image_queue], dim=1)  # (E, B + Q)
        texts = torch.cat([slow.text.T, self.text_queue], dim=1)  # (E, B + Q)
        alpha = self.alpha(done)
        with torch.no_grad():
            wanted_texts = similarities(slow.image, texts, temperature)  # (B, B + Q)
            wanted_images = similarities(slow.text, images, temperature)  # (B, B + Q)
        to_text = distilled_loss(similarities(online.image, texts, temperature), wanted_texts, positive, alpha)
        to_image = distilled_loss(similarities(online.text, images, temperature), wanted_images, positive, alpha)
        return (to_text + to_image) / 2

    @torch.no_grad()
    def enqueue(self, features: Features, images: Tensor) -> None:
        """Overwrite the oldest entries with the features of all ranks' N pairs and their image numbers (N,); N <= Q."""
        size, count = self.settings.queue, len(images)
        # Columns are computed on the device: reading the pointer here would stall a GPU at every step.
        columns = (self.pointer + torch.arange(count, device=images.device)) % size  # (N,)
        self.image_queue.index_copy_(1, columns, features.image.T)
        self.text_queue.index_copy_(1, columns, features.text.T)
        self.images.index_copy_(0, columns, images)
        self.pointer.add_(count).remainder_(size)


def resume_published(momentum: Momentum, state: Mapping[str, Tensor], where: str) -> None:
    """Take copies and queues from an original pre-training or retrieval state dict, to go on where it stopped.

    A pre-training file has no image numbers: its entries belong to no image, as in the original's retrieval fine-tune.

    Raises:
        CheckpointError: momentum copies or queues are missing, or have other sizes.
    """
    queues = {ours: state[name] for name, ours in QUEUES.items() if name in state}
    _resume(momentum, queues, _copies(momentum, state), where)


def save_momentum(momentum: Momentum, file: Path) -> None:
    """Write copies and queues, from which a fine-tune of the same model continues."""
    with staged(str(file)) as partial:
        save_file({name: tensor.contiguous() for name, tensor in momentum.state_dict().items()}, partial)


def load_momentum(momentum: Momentum, file: Path) -> None:
    """Take copies and queues from what save_momentum wrote; the queued entries belong to no image of this training.

    Raises:
        CheckpointError: they are damaged, or have other sizes.
    """
    state = load_tensors(file)
    queues = {name: state[name] for name in state.keys() & {*QUEUES.values()} - {"images"}}
    copies = {name.removeprefix("copy."): tensor for name, tensor in state.items() if name.startswith("copy.")}
    _resume(momentum, queues, copies, str(file))


def _resume(momentum: Momentum, queues: dict[str, Tensor], copies: dict[str, Tensor], where: str) -> None:
    size = queues["image_queue"].shape[1] if "image_queue" in queues else momentum.settings.queue
    if size != momentum.settings.queue:
        raise CheckpointError(
            f"{where}: its queues have {size} entries, momentum.queue is {momentum.settings.queue}; "
            f"set momentum.queue: {size}"
        )
    own = momentum.state_dict()
    # The original's pointer and image numbers have a dimension more.
    given = {name: t.view_as(own[name]) if t.numel() == own[name].numel() else t for name, t in queues.items()}
    given |= {f"copy.{name}": tensor for name, tensor in fit_positions(copies, momentum.copy.config).items()}
    needed = set(own) - {"images"}
    wrong = sorted(name for name in needed if name not in given or given[name].shape != own[name].shape)
    if wrong:
        raise CheckpointError(
            f"{where}: {len(wrong)} of {len(needed)} momentum tensors are missing or of another size (first: "
            f"{wrong[0]}); give a pre-training checkpoint, or an original retrieval file, with the sizes of the model"
        )
    momentum.load_state_dict(own | given)


def _copies(momentum: Momentum, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the original's momentum parameters under MED's names, without those that ITC never reads."""
    wanted = set(momentum.copy.state_dict())
    named = {translate(name.replace("_m.", ".", 1)): t for name, t in state.items() if COPIED.match(name)}
    return {name: tensor.float() for name, tensor in named.items() if name in wanted}


def _encoders(model: MED) -> MED:
    """Return a copy of the model with only what ITC reads."""
    copy = deepcopy(model).requires_grad_(False)
    for name in ("itm_head", "temperature"):
        delattr(copy, name)
    if model.config.decoder:
        del copy.text.head
    for block in copy.text.blocks:
        for name in [name for name, _ in block.named_children() if name not in READ_BY_ITC]:
            delattr(block, name)
    return copy
