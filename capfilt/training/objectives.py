"""What each training job minimises: modules that hold a model and map a batch to its losses, by name.

The image's tokens and its cross-attention keys and values are computed once and serve all passes.

Shapes: B images, n texts for each, R = B * n, L tokens, M image tokens.
Source: BLIP, arXiv 2201.12086, sections 3.2 and 3.3.
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from capfilt.med.losses import contrastive_loss, hard_negatives, language_loss, matching_loss
from capfilt.med.model import MED
from capfilt.med.text import KeysValues
from capfilt.med.tokens import Tokens
from capfilt.med.vision import normalise
from capfilt.training.data import Batch

Losses = dict[str, Tensor]
Data = TypeVar("Data")


class Objective(nn.Module, ABC, Generic[Data]):
    """A model and what it is trained to do. Its state dict is all there is to resume."""

    model: nn.Module

    @abstractmethod
    def forward(self, batch: Data, done: float) -> Losses:
        """Return the losses of a batch, scalars whose sum is minimised; `done`: share of the steps taken, 0 to 1."""


class Captioning(Objective[Batch]):
    """LM with a prompt that is given and not scored (section 5.2)."""

    def __init__(self, model: MED, tokens: Tokens, prompt: str) -> None:
        super().__init__()
        self.model: MED = model
        self.prompt = torch.tensor([tokens.dec, *tokens.pieces(prompt)])  # (P,)

    def forward(self, batch: Batch, done: float) -> Losses:
        """Return "lm"."""
        projected = self.model.project_image(self.model.encode_image(normalise(batch.pixels)))
        front = self.prompt.to(batch.ids.device).expand(len(batch.ids), -1)  # (R, P)
        ids = torch.cat([front, batch.ids[:, 1:]], dim=1)  # (R, P + L - 1)
        keep = torch.cat([torch.ones_like(front, dtype=torch.bool), batch.keep[:, 1:]], dim=1)  # (R, P + L - 1)
        return {"lm": language_loss(self.model.decode(ids, projected), ids, keep, prompt=len(self.prompt))}


class Filtering(Objective[Batch]):
    """ITC + ITM (section 3.3)."""

    def __init__(self, model: MED, tokens: Tokens) -> None:
        super().__init__()
        self.model: MED = model
        self.tokens = tokens

    def forward(self, batch: Batch, done: float) -> Losses:
        """Return "itc" and "itm"."""
        image = self.model.encode_image(normalise(batch.pixels))  # (B, M, D)
        return self.understanding(batch, image, self.model.project_image(image), matching=True)

    def understanding(self, batch: Batch, image: Tensor, projected: list[KeysValues], matching: bool) -> Losses:
        """Return ITC and, if asked for, ITM of images whose tokens (B, M, D), keys and values are given."""
        images = self.model.image_features(image)  # (B, E)
        texts = self.model.text_features(batch.ids, batch.keep)  # (R, E)
        positive = true_pairs(batch)  # (B, R)
        losses = {"itc": contrastive_loss(images.float(), texts.float(), self.model.temperature, positive)}
        if matching:
            similarity = (images @ texts.T / self.model.temperature).detach()  # (B, R)
            losses["itm"] = self._matching(batch, projected, similarity, positive)
        return losses

    def _matching(self, batch: Batch, projected: list[KeysValues], similarity: Tensor, positive: Tensor) -> Tensor:
        """Return ITM over the true pairs, a hard negative image a text and n hard negative texts an image."""
        ids, keep = starting_with(self.tokens.enc, batch.ids), batch.keep  # (R, L), (R, L)
        each = len(ids) // len(similarity)
        texts = hard_negatives(similarity, positive, each).flatten()  # (R,), n for each image
        images = hard_negatives(similarity.T, positive.T, 1).flatten()  # (R,), one for each text
        true = self.model.match(ids, keep, projected)  # (R, 2)
        false_text = self.model.match(ids[texts], keep[texts], projected)  # (R, 2)
        chosen = [(keys[images], values[images]) for keys, values in projected]
        false_image = self.model.match(ids, keep, chosen)  # (R, 2)
        return matching_loss(true.float(), torch.cat([false_text, false_image]).float())


class Pretraining(Filtering):
    """ITC + ITM + LM (section 3.2); ITM joins after a share itm_warmup of the steps."""

    def __init__(self, model: MED, tokens: Tokens, itm_warmup: float) -> None:
        super().__init__(model, tokens)
        self.itm_warmup = itm_warmup

    def forward(self, batch: Batch, done: float) -> Losses:
        """Return "lm", "itc" and, from its time on, "itm"."""
        image = self.model.encode_image(normalise(batch.pixels))  # (B, M, D)
        projected = self.model.project_image(image)
        ids = starting_with(self.tokens.dec, batch.ids)  # (R, L)
        lm = language_loss(self.model.decode(ids, projected), ids, batch.keep)
        return {"lm": lm, **self.understanding(batch, image, projected, matching=done >= self.itm_warmup)}


def true_pairs(batch: Batch) -> Tensor:
    """Return which texts belong to which images, bool (B, R).

    A text that an image shares word for word with another image belongs to both: it is no negative.
    """
    rows = len(batch.ids)
    same = (batch.ids[:, None] == batch.ids[None]).all(dim=2)  # (R, R)
    return same.view(len(batch.pixels), rows // len(batch.pixels), rows).any(dim=1)


def starting_with(token: int, ids: Tensor) -> Tensor:
    """Return ids (R, L) with another first token."""
    ids = ids.clone()
    ids[:, 0] = token
    return ids
