"""VQA: answers are chosen among candidates, or generated.

Shapes: B questions, L question tokens, N candidates, k of them whose likelihood is summed, T answer tokens,
V vocabulary.
Source: BLIP, arXiv 2201.12086, section 5.3; ranking as in its released code (ALBEF's adds the first token twice).
"""

from collections import defaultdict
from statistics import fmean
from typing import NamedTuple, cast

import torch
from torch import Tensor

from capfilt.annotations import read_json
from capfilt.config import Sampling
from capfilt.config.tasks import VQASettings
from capfilt.errors import AnnotationError
from capfilt.evaluation.vqa_accuracy import answer_accuracy
from capfilt.med.attention import KeysValues
from capfilt.med.beam import beam_search
from capfilt.med.losses import language_loss
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vision import normalise
from capfilt.med.vqa import VQA
from capfilt.training.passes import in_order
from capfilt.training.questions import QuestionBatch, Questions


class _Candidates(NamedTuple):
    """The answers to choose from."""

    texts: list[str]
    ids: Tensor  # start with [DEC], (N, T)
    keep: Tensor  # bool (N, T), True for real tokens


def evaluate_vqa(
    model: VQA, questions: Questions, texts: list[str], settings: VQASettings
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Answer all questions.

    Args:
        model: in evaluation mode.
        questions: with people's answers where these are known.
        texts: the answers to choose from; none where answers are generated.
        settings: how answers are found.

    Returns:
        The figures, with the official accuracy in percent over the questions whose answers are known, and the answers
        in the form that VQAv2's server takes.
    """
    device = next(model.parameters()).device
    candidates = _encode(texts, questions.tokenizer, model, device)
    answers: list[str] = []
    for batch in in_order(questions, settings.batch_size, 0, questions.settings.workers):
        moved = QuestionBatch(*(tensor.to(device) for tensor in batch))
        answers += _answers(model, questions.tokenizer, moved, settings, candidates)
    figures: dict[str, object] = {"questions": len(answers)}
    scores: dict[str, list[float]] = defaultdict(list)
    for question, answer in zip(questions.questions, answers, strict=True):
        if question.answers:
            scores[question.answer_type].append(100 * answer_accuracy(answer, question.answers))
    if scores:
        figures["accuracy"] = fmean(score for group in scores.values() for score in group)
        figures["accuracy_by_type"] = {kind: fmean(group) for kind, group in sorted(scores.items()) if kind}
    return figures, [
        {"question_id": question.number, "answer": answer}
        for question, answer in zip(questions.questions, answers, strict=True)
    ]


def read_candidates(settings: VQASettings) -> list[str]:
    """Return the answers to choose from; none where answers are generated.

    Raises:
        AnnotationError: the file is missing or is not a JSON list of texts.
    """
    if settings.candidates is None or settings.method == "generate":
        return []
    value = read_json(settings.candidates)
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise AnnotationError(
            f"{settings.candidates}: is not a JSON list of answers; give one, such as answer_list.json"
        )
    return cast("list[str]", value)


@torch.inference_mode()
def rank_answers(
    model: VQA, question: list[KeysValues], seen: Tensor, candidates: Tensor, keep: Tensor, top_k: int
) -> Tensor:
    """Return the likeliest candidate of each question, int64 (B,).

    The probability of the first token selects k candidates; among these, the one with the smallest training loss, label
    smoothing included, summed over its tokens, is the answer.

    Args:
        model: in evaluation mode.
        question: keys and values from model.ask.
        seen: bool (B, L), True for the real tokens of a question.
        candidates: ids that start with [DEC], (N, T).
        keep: bool (N, T), True for real tokens.
        top_k: k; all candidates if there are fewer.
    """
    starts = candidates[:1, :1].expand(len(seen), 1)  # (B, 1)
    first = model.decode(starts, question, seen)[:, 0].float().softmax(dim=1)  # (B, V)
    chosen = first[:, candidates[:, 1]].topk(min(top_k, len(candidates)), dim=1).indices  # (B, k)
    ids, real = candidates[chosen.flatten()], keep[chosen.flatten()]  # (B * k, T) each
    logits = model.decode(ids, question, seen)  # (B * k, T, V)
    likelihood = -language_loss(logits, ids, real, reduction="none").sum(dim=1).view(chosen.shape)  # (B, k)
    return chosen.gather(1, likelihood.argmax(dim=1, keepdim=True)).squeeze(1)


def generate_answers(
    model: VQA, question: list[KeysValues], seen: Tensor, tokenizer: Tokenizer, settings: VQASettings
) -> Tensor:
    """Return an answer to each question by beam search, int64 (B, T), [DEC] first; arguments as in rank_answers."""
    search = Sampling(
        method="beam",
        beams=settings.beams,
        repetition_penalty=1.0,
        max_length=settings.max_length,
        min_length=settings.min_length,
    )
    visible = None if settings.see_padding else seen
    return beam_search(model, question, [tokenizer.dec], tokenizer.end, search, visible).ids


def _encode(texts: list[str], tokenizer: Tokenizer, model: VQA, device: torch.device) -> _Candidates | None:
    """Return the answers to choose from as token ids; None where answers are generated."""
    if not texts:
        return None
    rows = tokenizer.encode_all(texts, tokenizer.dec, model.config.text.positions)
    ids, keep = tokenizer.batch(rows)  # (N, T), (N, T)
    return _Candidates(texts, ids.to(device), keep.to(device))


@torch.inference_mode()
def _answers(
    model: VQA, tokenizer: Tokenizer, batch: QuestionBatch, settings: VQASettings, candidates: _Candidates | None
) -> list[str]:
    question = model.ask(normalise(batch.pixels), batch.ids, batch.keep)
    if candidates is None:
        written = generate_answers(model, question, batch.keep, tokenizer, settings)
        return tokenizer.decode_all(written.tolist())
    best = rank_answers(model, question, batch.keep, candidates.ids, candidates.keep, settings.top_k)
    return [candidates.texts[index] for index in best.tolist()]
