"""The objectives of the training jobs: modules that hold a model and map a batch to its losses by name.

An image's tokens and its cross-attention keys and values are computed once for all passes.

Shapes: B images, n texts for each, R = B * n, L tokens, M image tokens, E projection width, Q entries of a queue,
N pairs that negatives are chosen among: the batch's, or those of all ranks.
Source: BLIP, arXiv 2201.12086, sections 3.2 and 3.3; order of events as in the original code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from capfilt.config.momentum import MomentumSettings
from capfilt.med.attention import KeysValues
from capfilt.med.losses import (
    FLOOR,
    contrastive_loss,
    draw,
    has_negative,
    language_loss,
    matching_loss,
    negative_weights,
    similarities,
)
from capfilt.med.model import MED
from capfilt.med.momentum import Features, Momentum
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vision import normalise
from capfilt.training.data import Batch
from capfilt.training.ranks import gather, gather_texts, gather_with_gradient, rank, world_size

TEMPERATURES = (0.001, 0.5)  # the original keeps the learned temperature in this range
Losses = dict[str, Tensor]
Choose = Callable[[Tensor, int], Tensor]  # from weights (R, N) and a count to columns (R, count)
Data = TypeVar("Data")


class Objective(nn.Module, ABC, Generic[Data]):
    """A model and its losses. The state dict is all that a resumed run needs."""

    model: nn.Module

    @abstractmethod
    def forward(self, batch: Data, done: float) -> Losses:
        """Return the losses of a batch, scalars whose sum is minimised; `done` is the share of steps taken, 0 to 1."""


class Captioning(Objective[Batch]):
    """LM with a prompt, whose tokens are not scored (section 5.2)."""

    prompt: Tensor  # int64 (P,)

    def __init__(self, model: MED, tokenizer: Tokenizer, prompt: str) -> None:
        super().__init__()
        self.model: MED = model
        # A buffer is on the model's device: a copy in each step would make the host wait for the GPU.
        self.register_buffer("prompt", torch.tensor([tokenizer.dec, *tokenizer.pieces(prompt)]), persistent=False)

    def forward(self, batch: Batch, done: float) -> Losses:
        """Return "lm"."""
        projected = self.model.project_image(self.model.encode_image(normalise(batch.pixels)))
        front = self.prompt.expand(len(batch.ids), -1)  # (R, P)
        ids = torch.cat([front, batch.ids[:, 1:]], dim=1)  # (R, P + L - 1)
        keep = torch.cat([torch.ones_like(front, dtype=torch.bool), batch.keep[:, 1:]], dim=1)  # (R, P + L - 1)
        return {"lm": language_loss(self.model.decode(ids, projected), ids, keep, prompt=len(self.prompt))}


class Weights(NamedTuple):
    """Weights by which hard negatives are drawn among N pairs; a row of zeros has none."""

    texts: Tensor  # (B, N), for each image
    images: Tensor  # (R, N), for each text


class Filtering(Objective[Batch]):
    """ITC + ITM (section 3.3); with momentum, the original's retrieval fine-tune.

    With momentum, all texts of an image in batch and queue are its positives. Without, ITC compares within the batch of
    this rank.
    """

    def __init__(
        self,
        model: MED,
        tokenizer: Tokenizer,
        momentum: MomentumSettings | None = None,
        seed: int = 0,
        choose: Choose = draw,
    ) -> None:
        """Hold the model; seed draws the queues' first entries, choose draws negatives by their weights."""
        super().__init__()
        self.model: MED = model
        self.tokenizer, self.choose = tokenizer, choose
        self.momentum = Momentum(model, momentum, seed) if momentum else None
        self.floor = 0.0 if momentum else FLOOR

    def forward(self, batch: Batch, done: float) -> Losses:
        """Return "itc" and "itm"."""
        pixels = normalise(batch.pixels)  # (B, 3, S, S)
        image = self.model.encode_image(pixels)  # (B, M, D)
        itc, weights = self.contrast(batch, pixels, image, done)
        return {"itc": itc, "itm": self.match(batch, image, self.model.project_image(image), weights)}

    @property
    def everywhere(self) -> bool:
        """Whether negatives come from other ranks too."""
        wanted = self.momentum is not None and self.momentum.settings.negatives == "all_ranks"
        return wanted and world_size() > 1

    def positives(self, batch: Batch, images: Tensor, first: int) -> Tensor:
        """Return which of N pairs are true for the batch's images and texts, bool (B, N).

        Args:
            batch: with one text for each image.
            images: image numbers of the N pairs, (N,).
            first: index of the batch's first pair among them.
        """
        return batch.images[:, None] == images  # (B, N)

    def compared(self, online: Features, slow: Features) -> Features:
        """Return the features whose similarity to the online ones gives the weights of hard negatives."""
        return online

    def contrast(self, batch: Batch, pixels: Tensor, image: Tensor, done: float) -> tuple[Tensor, Weights]:
        """Return ITC and the weights of hard negatives of images (B, 3, S, S) with tokens (B, M, D)."""
        temperature = self.model.temperature
        temperature.data.clamp_(*TEMPERATURES)
        online = Features(self.model.image_features(image), self.model.text_features(batch.ids, batch.keep))
        if self.momentum is None:
            positive = true_pairs(batch)  # (B, R)
            return contrastive_loss(*online, temperature, positive), self._weights(online, online, positive, positive.T)
        self.momentum.follow(done)
        slow = self.momentum.features(pixels, batch.ids, batch.keep)
        positive = self.positives(batch, self.momentum.with_queue(batch.images), 0)  # (B, B + Q)
        loss = self.momentum.contrast(online, slow, temperature, positive, done)
        images = gather(batch.images)  # (W * B,)
        self.momentum.enqueue(Features(*map(gather, slow)), images)
        compared, first = self.compared(online, slow), 0
        if self.everywhere:
            compared, first = Features(*map(gather, compared)), rank() * len(pixels)
        positive = self.positives(batch, images if self.everywhere else batch.images, first)  # (B, N)
        return loss, self._weights(online, compared, positive, positive)

    def _weights(self, online: Features, compared: Features, own_texts: Tensor, own_images: Tensor) -> Weights:
        """Weight candidates by their similarity to the online features; own_texts (B, N) and own_images (R, N)."""
        to_text = similarities(online.image, compared.text.T, self.model.temperature)  # (B, N)
        to_image = similarities(online.text, compared.image.T, self.model.temperature)  # (R, N)
        return Weights(
            negative_weights(to_text, own_texts, self.floor), negative_weights(to_image, own_images, self.floor)
        )

    def match(self, batch: Batch, image: Tensor, projected: list[KeysValues], weights: Weights) -> Tensor:
        """Return ITM over the true pairs, one hard negative image per text and n hard negative texts per image.

        The original's three passes are two here: an image's true and false texts share its keys and values without a
        copy. Only those of the false images are gathered, a third of what the original gathers.
        """
        ids, keep = starting_with(self.tokenizer.enc, batch.ids), batch.keep  # (R, L), (R, L)
        all_ids, all_keep = ids, keep  # (N, L), (N, L)
        if self.everywhere:
            ids, keep, all_ids, all_keep = gather_texts(ids, keep)
        each = len(ids) // len(image)
        texts = self.choose(weights.texts, each)  # (B, n)
        images = self.choose(weights.images, 1)[:, 0]  # (R,)
        both = torch.cat([ids.view(len(image), each, -1), all_ids[texts]], dim=1).flatten(0, 1)  # (2R, L)
        both_keep = torch.cat([keep.view(len(image), each, -1), all_keep[texts]], dim=1).flatten(0, 1)  # (2R, L)
        shared = self.model.match(both, both_keep, projected).view(len(image), 2, each, 2)
        true, false_text = shared.transpose(0, 1).flatten(1, 2)  # (R, 2), (R, 2)
        false_image = self.model.match(ids, keep, self._chosen(image, projected, images))  # (R, 2)
        usable = torch.cat([has_negative(weights.texts).repeat_interleave(each), has_negative(weights.images)])  # (2R,)
        return matching_loss(true, torch.cat([false_text, false_image]), usable)

    def _chosen(self, image: Tensor, projected: list[KeysValues], images: Tensor) -> list[KeysValues]:
        """Return the keys and values of the chosen images (R,); if they come from all ranks, project them here."""
        if self.everywhere:
            return self.model.project_image(gather_with_gradient(image)[images])
        return [(keys[images], values[images]) for keys, values in projected]


class Pretraining(Filtering):
    """ITC + ITM + LM (section 3.2); ITM is added after a share itm_warmup of the steps.

    With momentum, only a text's own pair is positive, and hard negatives are weighted by the logits of ITC.
    """

    def __init__(
        self,
        model: MED,
        tokenizer: Tokenizer,
        itm_warmup: float,
        momentum: MomentumSettings | None = None,
        seed: int = 0,
        choose: Choose = draw,
    ) -> None:
        super().__init__(model, tokenizer, momentum, seed, choose)
        self.itm_warmup, self.floor = itm_warmup, FLOOR

    def forward(self, batch: Batch, done: float) -> Losses:
        """Return "lm", "itc" and, after its warm-up, "itm"."""
        pixels = normalise(batch.pixels)  # (B, 3, S, S)
        image = self.model.encode_image(pixels)  # (B, M, D)
        projected = self.model.project_image(image)
        ids = starting_with(self.tokenizer.dec, batch.ids)  # (R, L)
        lm = language_loss(self.model.decode(ids, projected), ids, batch.keep)
        itc, weights = self.contrast(batch, pixels, image, done)
        losses = {"lm": lm, "itc": itc}
        return {**losses, "itm": self.match(batch, image, projected, weights)} if done >= self.itm_warmup else losses

    def positives(self, batch: Batch, images: Tensor, first: int) -> Tensor:
        """Return bool (B, N), True only for the pair itself; arguments as in Filtering.positives."""
        columns = torch.arange(len(images), device=images.device)  # (N,)
        return columns == first + columns[: len(batch.images), None]  # (B, N)

    def compared(self, online: Features, slow: Features) -> Features:
        """Return the momentum features, which ITC compares with."""
        return slow


def true_pairs(batch: Batch) -> Tensor:
    """Return which texts belong to which images, bool (B, R).

    All texts of an image belong to it, also if it is in the batch twice. A text that two images have word for word
    belongs to both: it is not a negative.
    """
    each = len(batch.ids) // len(batch.images)
    words = (batch.ids[:, None] == batch.ids[None]).all(dim=2)  # (R, R)
    image = batch.images[:, None] == batch.images.repeat_interleave(each)  # (B, R)
    return words.view(len(batch.images), each, len(batch.ids)).any(dim=1) | image  # (B, R)


def starting_with(token: int, ids: Tensor) -> Tensor:
    """Return ids (R, L) with another first token."""
    ids = ids.clone()
    ids[:, 0] = token
    return ids
