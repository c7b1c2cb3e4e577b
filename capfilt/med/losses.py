"""The three training losses of MED: ITC, ITM and LM. They take features and return scalars.

Shapes: B pairs, E projection width, R texts, L tokens, V vocabulary.
Source: BLIP, arXiv 2201.12086, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
LABEL_SMOOTHING = 0.1  # fixed in the original code; the paper does not name it


def contrastive_loss(
    image: Tensor, text: Tensor, temperature: Tensor | float, positive: Tensor | None = None
) -> Tensor:
    """Return the image-text contrastive (ITC) loss of a batch.

    The loss is the mean of the image-to-text and the text-to-image cross-entropy; where an image
    has several positives they share the target evenly.

    Args:
        image: L2-normalised image features, (B, E).
        text: L2-normalised text features, (B, E).
        temperature: positive divisor of the cosines; BLIP learns it, starting at 0.07.
        positive: bool, symmetric (B, B), True where text j belongs to image i; the diagonal when None.

    Returns:
        A scalar in nats. Independent features give about log(B), perfect ones nearly 0.

    Raises:
        ValueError: image and text do not hold the same number of pairs.
    """
    if len(image) != len(text):
        raise ValueError(f"{len(image)} images against {len(text)} texts; ITC needs one text for each image")
    similarity = image @ text.T / temperature  # (B, B), row i: image i against every text
    if positive is None:
        positive = torch.eye(len(image), dtype=torch.bool, device=image.device)  # (B, B)
    target = positive.float() / positive.sum(1, keepdim=True)  # (B, B), rows sum to 1
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def matching_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the image-text matching (ITM) loss: mean cross-entropy over true and false pairs, in nats.

    Args:
        positive: ITM logits of pairs that match, (R, 2).
        negative: ITM logits of pairs that do not, (N, 2).
    """
    labels = torch.cat([positive.new_ones(len(positive)), positive.new_zeros(len(negative))]).long()  # (R + N,)
    return F.cross_entropy(torch.cat([positive, negative]), labels)


def language_loss(logits: Tensor, ids: Tensor, keep: Tensor, prompt: int = 0, reduction: str = "mean") -> Tensor:
    """Return the language-modelling (LM) loss with label smoothing 0.1, in nats.

    Token t is predicted from the tokens before it. Padding is never scored, and the smoothing term
    leaves it out too (torch 1.10, which the original used, counted it).

    Args:
        logits: of the next token, (R, L, V).
        ids: the tokens, [DEC] first, int64 (R, L).
        keep: bool (R, L), True for real tokens.
        prompt: tokens at the start, [DEC] included, that are given and not scored.
        reduction: "mean" for a scalar over the scored tokens, "none" for (R, L - 1).
    """
    scored = keep.clone()  # (R, L)
    scored[:, :prompt] = False
    labels = ids.masked_fill(~scored, IGNORE)[:, 1:]  # (R, L - 1)
    loss = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels.flatten(), label_smoothing=LABEL_SMOOTHING, reduction=reduction
    )
    return loss if reduction == "mean" else loss.view(labels.shape)


def hard_negatives(similarity: Tensor, positive: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return for each row the index of one column that is no positive, likelier the more similar it is.

    Args:
        similarity: ITC logits, (B, B): cosines over the temperature.
        positive: bool (B, B), True where the pair matches; never drawn.
        generator: source of the draw.

    Returns:
        int64 (B,). A row without any negative draws among all others but itself.

    Source:
        section 3.3: hard negatives "with higher contrastive similarity in a batch are more likely to be selected".
    """
    weights = similarity.float().softmax(dim=1) + 1e-4  # (B, B)
    weights = weights.masked_fill(positive, 0.0)
    alone = weights.sum(1, keepdim=True) == 0  # (B, 1)
    weights = torch.where(alone, 1.0 - torch.eye(len(weights), device=weights.device), weights)
    return torch.multinomial(weights, 1, generator=generator).squeeze(1)
