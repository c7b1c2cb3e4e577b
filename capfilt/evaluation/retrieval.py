"""Retrieval: ITC finds likely candidates of each query, ITM reranks them.

Shapes: N images (or clips), R texts, L tokens, B images of a batch, F frames (1 for an image), M image tokens of a
frame, D image width, E projection width.
Source: BLIP, arXiv 2201.12086, section 5.1. The score is that of the released code, the ITM logit plus the cosine; the
paper names the ITM score alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from capfilt.config.evaluation import RetrievalSettings
from capfilt.evaluation.images import ImageSet
from capfilt.evaluation.video import encode
from capfilt.filters.med import MEDFilter
from capfilt.med.inference import on_device
from capfilt.progress import Progress
from capfilt.texts import normalise as normalise_text

NOT_RANKED = -100.0  # score of candidates that are not among the best k, as in the original
RANKS = (1, 5, 10)


class Texts(NamedTuple):
    """Texts as the encoder reads them."""

    ids: Tensor  # int64 (R, L), [CLS] first
    keep: Tensor  # bool (R, L), True for real tokens


class Ranking(NamedTuple):
    """Scores of the candidates of each query; higher is better."""

    texts: Tensor  # (N, R), of the texts for each image
    images: Tensor  # (R, N), of the images for each text


def evaluate_retrieval(judge: MEDFilter, images: ImageSet) -> dict[str, object]:
    """Return R@1, R@5 and R@10 both ways, in percent, of ITM after ITC and of ITC alone.

    Images that cannot be decoded are left out together with their texts.
    """
    settings = images.config.retrieval
    numbers, tokens, features = encode_all(judge, images)
    captions = [images.entries[number].captions for number in numbers]
    owners = torch.tensor([row for row, group in enumerate(captions) for _ in group])  # (R,)
    own = owners == torch.arange(len(numbers))[:, None]  # (N, R)
    texts = encode_texts(judge, [caption for group in captions for caption in group])
    cosines = features @ text_features(judge, texts, settings.texts_per_pass).T  # (N, R)
    counts = {"clips" if images.config.task == "video" else "images": len(numbers), "texts": len(owners)}
    ranking = rerank(judge, tokens, texts, cosines, settings)
    return {**counts, "itm": _figures(ranking, own), "itc_alone": _figures(Ranking(cosines, cosines.T), own)}


def encode_texts(judge: MEDFilter, texts: Sequence[str]) -> Texts:
    """Return captions in BLIP's normal form as token ids, padded to the longest."""
    tokenizer, most = judge.tokenizer, judge.settings.max_tokens
    words = [normalise_text(text, judge.settings.max_words) for text in texts]
    return Texts(*tokenizer.batch(tokenizer.encode_all(words, tokenizer.cls, most)))


@torch.inference_mode()
def text_features(judge: MEDFilter, texts: Texts, batch: int) -> Tensor:
    """Return the contrastive features of all texts, float32 (R, E), on the CPU."""
    parts = [
        judge.model.text_features(ids, keep).float().cpu()
        for ids, keep in zip(torch.split(texts.ids, batch), torch.split(texts.keep, batch), strict=True)
    ]
    return torch.cat(parts)  # (R, E)


def encode_all(judge: MEDFilter, images: ImageSet) -> tuple[list[int], Tensor, Tensor]:
    """Return the numbers of all decodable images, their tokens (N, F * M, D) and features (N, E), on the CPU.

    Tokens stay in the model's type: ViT-B at 384 pixels takes 0.9 MB for an image in bfloat16.
    """
    numbers: list[int] = []
    parts = []
    for batch, pixels in images.batches("encoded"):
        numbers += batch
        frames = on_device(pixels.flatten(0, 1), judge.device)  # (B * F, 3, S, S)
        parts.append(encode(judge.model, frames.view(pixels.shape)))
    tokens = torch.cat([part.cpu() for part, _ in parts])  # (N, F * M, D)
    return numbers, tokens, torch.cat([part.float().cpu() for _, part in parts])


@torch.inference_mode()
def rerank(judge: MEDFilter, tokens: Tensor, texts: Texts, cosines: Tensor, settings: RetrievalSettings) -> Ranking:
    """Score each query's best candidates by ITM, both ways.

    An image's cross-attention keys and values are projected once for all texts that it is matched with, as query or as
    candidate; a pair that is among the best both ways is scored once.

    Args:
        judge: the filter.
        tokens: image tokens (N, M, D), on any device.
        texts: R texts.
        cosines: of the contrastive features, (N, R).
        settings: how many candidates are scored, and which score.

    Returns:
        Scores of the best top_k candidates of each query, NOT_RANKED for all others: the ITM logit of class 1 plus
        the cosine or, for P(match) alone, its log-odds, which give the same ranks and do not round to 1.
    """
    for_image = _best(cosines, settings.top_k)  # (N, R), True where text r is among the best of image n
    for_text = _best(cosines.T, settings.top_k).T  # (N, R), True where image n is among the best of text r
    by_length = texts.keep.sum(dim=1).argsort()  # (R,), so that texts of a pass are about as long
    with_cosine = settings.score == "logit_and_cosine"
    scores = cosines.clone() if with_cosine else torch.zeros_like(cosines)
    with Progress(len(tokens), 0) as progress:
        for number, image in enumerate(tokens):
            wanted = by_length[(for_image[number] | for_text[number])[by_length]]
            projected = judge.model.project_image(image[None].to(judge.device.kind))
            for rows in torch.split(wanted, settings.texts_per_pass):
                logits = _match(judge, texts, rows, projected)  # (T, 2)
                scores[number, rows] += logits[:, 1] if with_cosine else logits[:, 1] - logits[:, 0]
            progress.add(1, "ranked")
    return Ranking(scores.masked_fill(~for_image, NOT_RANKED), scores.masked_fill(~for_text, NOT_RANKED).T)


def recalls(scores: Tensor, own: Tensor) -> dict[str, float]:
    """Return the share of queries, in percent, whose best own candidate is among the first 1, 5 and 10.

    Args:
        scores: of each candidate, (Q, C).
        own: bool (Q, C), True for candidates that belong to the query; at least one in each row.

    Returns:
        r1, r5 and r10, their mean, and the median rank, 1 being the first. Candidates of equal score rank from the
        last to the first, as in the original.
    """
    order = scores.flip(1).argsort(dim=1, descending=True, stable=True)  # (Q, C), columns counted from the last
    first = own.flip(1).gather(1, order).int().argmax(dim=1)  # (Q,), 0 is the first rank
    shares = {f"r{rank}": 100 * (first < rank).double().mean().item() for rank in RANKS}
    median = first.double().quantile(0.5).item() + 1
    return shares | {"mean": sum(shares.values()) / len(shares), "median_rank": median}


def _best(scores: Tensor, k: int) -> Tensor:
    """Return bool of the shape of scores (Q, C), True for the k best of each row."""
    columns = scores.topk(min(k, scores.shape[1]), dim=1).indices  # (Q, k)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, columns, True)


def _match(judge: MEDFilter, texts: Texts, rows: Tensor, image: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the ITM logits, float32 (len(rows), 2), of some texts with one image."""
    length = int(texts.keep[rows].sum(dim=1).max())
    ids, keep = texts.ids[rows, :length], texts.keep[rows, :length]
    ids[:, 0] = judge.first
    return judge.model.match(ids, keep, image).float().cpu()


def _figures(ranking: Ranking, own: Tensor) -> dict[str, object]:
    to_text, to_image = recalls(ranking.texts, own), recalls(ranking.images, own.T)
    return {"to_text": to_text, "to_image": to_image, "mean": (to_text["mean"] + to_image["mean"]) / 2}
