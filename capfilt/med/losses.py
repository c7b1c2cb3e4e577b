"""The three training losses of MED: ITC, ITM and LM. They take features and return scalars.

Shapes: B pairs, E projection width, R texts, L tokens, V vocabulary, C features compared with.
Source: BLIP, arXiv 2201.12086, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
LABEL_SMOOTHING = 0.1  # fixed in the original code
FLOOR = 1e-4  # added to the weights of hard negatives in pre-training, in the original code


def contrastive_loss(image: Tensor, text: Tensor, temperature: Tensor | float, positive: Tensor) -> Tensor:
    """Return the image-text contrastive (ITC) loss of a batch.

    The loss is the mean of the image-to-text and the text-to-image cross-entropy; an image or a text
    with several positives shares its target evenly among them.

    Args:
        image: L2-normalised image features, (B, E).
        text: L2-normalised text features, (R, E).
        temperature: positive divisor of the cosines; BLIP learns it, starting at 0.07.
        positive: bool, (B, R), True where text r belongs to image b; at least one in each row and column.

    Returns:
        A scalar in nats. Independent features give about (log(B) + log(R)) / 2, perfect ones the targets' entropy.

    Raises:
        ValueError: positive does not have one row for each image and one column for each text.
    """
    if positive.shape != (len(image), len(text)):
        raise ValueError(
            f"positive has shape {tuple(positive.shape)}, not ({len(image)}, {len(text)}): images by texts"
        )
    similarity = similarities(image, text.T, temperature)  # (B, R), row b: image b against every text
    to_text = F.cross_entropy(similarity, evenly(positive))
    to_image = F.cross_entropy(similarity.T, evenly(positive.T))
    return (to_text + to_image) / 2


def distilled_loss(similarity: Tensor, momentum: Tensor, positive: Tensor, alpha: float) -> Tensor:
    """Return one direction of ITC with soft targets: alpha from the momentum copies, the rest from the labels.

    Args:
        similarity: logits of the model's features against C momentum features, (B, C).
        momentum: logits of the momentum copies' own features against the same, (B, C); no gradient flows into them.
        positive: bool (B, C), True where the pair belongs together; at least one in each row.
        alpha: weight of the momentum copies' distribution, 0 to 1.

    Returns:
        A scalar in nats. Independent features give about log(C).

    Source:
        ALBEF, arXiv 2107.07651, section 3.3; the image-aware labels of retrieval are the original code's.
    """
    target = alpha * momentum.detach().softmax(dim=1) + (1 - alpha) * evenly(positive)  # (B, C)
    return F.cross_entropy(similarity, target)


def similarities(features: Tensor, others: Tensor, temperature: Tensor | float) -> Tensor:
    """Return ITC logits (N, C) of features (N, E) against others (E, C), in float32 under autocast too.

    The temperature magnifies the rounding of bfloat16 to several per cent of a probability.
    """
    with torch.autocast(features.device.type, enabled=False):
        return features.float() @ others.float() / temperature  # (N, C)


def evenly(positive: Tensor) -> Tensor:
    """Return targets (N, C), each row's 1 shared evenly among its positives, bool (N, C)."""
    return positive / positive.sum(dim=1, keepdim=True)  # (N, C)


def matching_loss(positive: Tensor, negative: Tensor, usable: Tensor) -> Tensor:
    """Return the image-text matching (ITM) loss: mean cross-entropy over true and false pairs, in nats.

    Args:
        positive: ITM logits of pairs that match, (R, 2).
        negative: ITM logits of pairs that do not, (N, 2).
        usable: bool (N,), False for placeholders where no negative was found; they are not scored.
    """
    false = torch.zeros_like(usable, dtype=torch.long).masked_fill(~usable, IGNORE)  # (N,)
    labels = torch.cat([false.new_ones(len(positive)), false])  # (R + N,)
    return F.cross_entropy(torch.cat([positive, negative]).float(), labels)


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
    predicted = logits[:, :-1].flatten(0, 1).float()  # (R (L - 1), V)
    loss = F.cross_entropy(predicted, labels.flatten(), label_smoothing=LABEL_SMOOTHING, reduction=reduction)
    return loss if reduction == "mean" else loss.view(labels.shape)


def negative_weights(similarity: Tensor, positive: Tensor, floor: float) -> Tensor:
    """Return weights for drawing each column as a row's hard negative: the more similar, the likelier.

    Args:
        similarity: ITC logits, (N, M): cosines over the temperature.
        positive: bool (N, M), True where the pair belongs together.
        floor: added to the softmax of the similarities; the original has 1e-4 in pre-training, 0 in retrieval.

    Returns:
        Weights (N, M), not summing to 1; 0 for positives. A row with only positives has no negative: it is all 0.

    Source:
        section 3.2: hard negatives "with higher contrastive similarity in a batch are more likely to be selected".
    """
    weights = (similarity.detach().float().softmax(dim=1) + floor).masked_fill(positive, 0.0)  # (N, M)
    # If a positive takes all of the softmax, the negatives may vanish in float32: then all get equal weight.
    return torch.where(has_negative(weights)[:, None], weights, (~positive).float())


def has_negative(weights: Tensor) -> Tensor:
    """Return which rows of weights (N, M) have something to draw, bool (N,)."""
    return weights.sum(dim=1) > 0


def draw(weights: Tensor, count: int) -> Tensor:
    """Return count columns for each row of weights (N, M), int64 (N, count), drawn with replacement.

    A row of zeros draws among all columns: it must not fail, and its draws must not be scored.
    """
    return torch.multinomial(weights.masked_fill(~has_negative(weights)[:, None], 1.0), count, replacement=True)
