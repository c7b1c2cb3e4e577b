"""The three training losses of MED: ITC, ITM and LM. They take features and return scalars.

Shapes: B pairs, E projection width, R texts, L tokens, V vocabulary.
Source: BLIP, arXiv 2201.12086, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
LABEL_SMOOTHING = 0.1  # fixed in the original code; the paper does not name it


def contrastive_loss(image: Tensor, text: Tensor, temperature: Tensor | float, positive: Tensor) -> Tensor:
    """Return the image-text contrastive (ITC) loss of a batch.

    The loss is the mean of the image-to-text and the text-to-image cross-entropy; what has several
    positives shares its target evenly among them.

    Args:
        image: L2-normalised image features, (B, E).
        text: L2-normalised text features, (R, E).
        temperature: positive divisor of the cosines; BLIP learns it, starting at 0.07.
        positive: bool, (B, R), True where text r belongs to image b; at least one in each row and column.

    Returns:
        A scalar in nats. Independent features give about (log(B) + log(R)) / 2, perfect ones the targets' entropy.

    Raises:
        ValueError: positive has not one row for each image and one column for each text.
    """
    if positive.shape != (len(image), len(text)):
        raise ValueError(
            f"positive has shape {tuple(positive.shape)}, not ({len(image)}, {len(text)}): images by texts"
        )
    similarity = image @ text.T / temperature  # (B, R), row b: image b against every text
    target = positive.float()  # (B, R)
    to_text = F.cross_entropy(similarity, target / target.sum(1, keepdim=True))
    to_image = F.cross_entropy(similarity.T, (target / target.sum(0)).T)
    return (to_text + to_image) / 2


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


def hard_negatives(
    similarity: Tensor, positive: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return for each row the indices of columns that are no positives, likelier the more similar they are.

    Args:
        similarity: ITC logits, (N, M): cosines over the temperature.
        positive: bool (N, M), True where the pair matches; never drawn.
        count: columns to draw for a row, with replacement.
        generator: source of the draw.

    Returns:
        int64 (N, count). A row whose columns are all positives draws among all of them.

    Source:
        section 3.2: hard negatives "with higher contrastive similarity in a batch are more likely to be selected".
    """
    weights = (similarity.float().softmax(dim=1) + 1e-4).masked_fill(positive, 0.0)  # (N, M)
    weights = weights.masked_fill(positive.all(dim=1, keepdim=True), 1.0)
    return torch.multinomial(weights, count, replacement=True, generator=generator)
