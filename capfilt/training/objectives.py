"""What each training job minimises: the losses of a batch, by name. Their sum is the loss.

The image's tokens and its cross-attention keys and values are computed once and serve all passes.

Shapes: B images, n texts for each, R = B * n, L tokens, M image tokens.
Source: BLIP, arXiv 2201.12086, sections 3.2 and 3.3.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from capfilt.med.losses import contrastive_loss, hard_negatives, language_loss, matching_loss
from capfilt.med.model import MED
from capfilt.med.text import KeysValues
from capfilt.med.tokens import Tokens
from capfilt.med.vision import normalise
from capfilt.training.data import Batch

Losses = dict[str, Tensor]
Objective = Callable[[MED, Batch, float], Losses]  # the number: how much of the training is done, 0 to 1


def pretraining(tokens: Tokens, itm_warmup: float) -> Objective:
    """Return ITC + ITM + LM (section 3.2); ITM joins after a share itm_warmup of the steps."""

    def losses(model: MED, batch: Batch, done: float) -> Losses:
        image = model.encode_image(normalise(batch.pixels))  # (B, M, D)
        projected = model.project_image(image)
        ids = _starting_with(tokens.dec, batch.ids)  # (R, L)
        lm = language_loss(model.decode(ids, projected), ids, batch.keep)
        return {"lm": lm, **_understanding(model, batch, tokens, image, projected, done >= itm_warmup)}

    return losses


def captioning(tokens: Tokens, prompt: str) -> Objective:
    """Return LM with a prompt that is given and not scored (section 5.2)."""
    given = torch.tensor([tokens.dec, *tokens.pieces(prompt)])  # (P,)

    def losses(model: MED, batch: Batch, done: float) -> Losses:
        projected = model.project_image(model.encode_image(normalise(batch.pixels)))
        front = given.to(batch.ids.device).expand(len(batch.ids), -1)  # (R, P)
        ids = torch.cat([front, batch.ids[:, 1:]], dim=1)  # (R, P + L - 1)
        keep = torch.cat([torch.ones_like(front, dtype=torch.bool), batch.keep[:, 1:]], dim=1)  # (R, P + L - 1)
        return {"lm": language_loss(model.decode(ids, projected), ids, keep, prompt=len(given))}

    return losses


def filtering(tokens: Tokens) -> Objective:
    """Return ITC + ITM (section 3.3)."""

    def losses(model: MED, batch: Batch, done: float) -> Losses:
        image = model.encode_image(normalise(batch.pixels))  # (B, M, D)
        return _understanding(model, batch, tokens, image, model.project_image(image), matching=True)

    return losses


def _understanding(
    model: MED, batch: Batch, tokens: Tokens, image: Tensor, projected: list[KeysValues], matching: bool
) -> Losses:
    images, texts = model.image_features(image), model.text_features(batch.ids, batch.keep)  # (B, E), (R, E)
    positive = true_pairs(batch)  # (B, R)
    losses = {"itc": contrastive_loss(images.float(), texts.float(), model.temperature, positive)}
    if matching:
        similarity = (images @ texts.T / model.temperature).detach()  # (B, R)
        losses["itm"] = _matching(model, batch, tokens, projected, similarity, positive)
    return losses


def _matching(
    model: MED, batch: Batch, tokens: Tokens, projected: list[KeysValues], similarity: Tensor, positive: Tensor
) -> Tensor:
    """Return ITM over all true pairs, a hard negative image for each text and n hard negative texts for each image."""
    ids, keep = _starting_with(tokens.enc, batch.ids), batch.keep  # (R, L), (R, L)
    each = len(ids) // len(similarity)
    texts = hard_negatives(similarity, positive, each).flatten()  # (R,), n for each image
    images = hard_negatives(similarity.T, positive.T, 1).flatten()  # (R,), one for each text
    true = model.match(ids, keep, projected)  # (R, 2)
    false_text = model.match(ids[texts], keep[texts], projected)  # (R, 2)
    false_image = model.match(ids, keep, [(keys[images], values[images]) for keys, values in projected])  # (R, 2)
    return matching_loss(true.float(), torch.cat([false_text, false_image]).float())


def true_pairs(batch: Batch) -> Tensor:
    """Return which texts belong to which images, bool (B, R).

    A text that an image shares word for word with another image belongs to both: it is no negative.
    """
    rows = len(batch.ids)
    same = (batch.ids[:, None] == batch.ids[None]).all(dim=2)  # (R, R)
    return same.view(len(batch.pixels), rows // len(batch.pixels), rows).any(dim=1)


def _starting_with(token: int, ids: Tensor) -> Tensor:
    ids = ids.clone()
    ids[:, 0] = token
    return ids
