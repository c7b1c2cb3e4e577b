"""Training a model to answer questions: images with their questions and answers, and the loss.

Shapes: B questions, A answers of them, L question tokens, T answer tokens.
Source: BLIP, arXiv 2201.12086, section 5.3; the weights of answers come from its released code.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from capfilt.config.tasks import QuestionData
from capfilt.errors import AnnotationError
from capfilt.med.losses import language_loss
from capfilt.med.tokens import Tokens
from capfilt.med.vision import normalise
from capfilt.med.vqa import VQA
from capfilt.texts import normalise_question
from capfilt.training.entries import Draw, read_pixels
from capfilt.training.objectives import Losses, Objective
from capfilt.training.questions import Question, read_questions


class QuestionBatch(NamedTuple):
    """Questions, and the answers of each next to each other; in evaluation there are none."""

    pixels: Tensor  # uint8 (B, 3, S, S)
    ids: Tensor  # int64 (B, L): [ENC] in front, [SEP] behind, [PAD] to the longest
    keep: Tensor  # bool (B, L), True for real tokens
    answers: Tensor  # int64 (A, T): [DEC] in front, [SEP] behind, [PAD] to the longest
    answers_keep: Tensor  # bool (A, T)
    weights: Tensor  # float32 (A,)
    owners: Tensor  # int64 (A,): row of the question that an answer belongs to


class Asked(NamedTuple):
    """One question of a batch."""

    pixels: Tensor  # uint8 (3, S, S)
    ids: list[int]
    answers: list[tuple[list[int], float]]  # ids and weight


class Questions(Dataset[Asked]):
    """The questions of some annotation files with their images, which are read when asked for."""

    def __init__(self, settings: QuestionData, tokens: Tokens, image_size: int) -> None:
        self.settings, self.tokens, self.image_size = settings, tokens, image_size
        self.questions: list[Question] = read_questions(settings)

    def require_answers(self) -> None:
        """Raise AnnotationError if a question cannot be learnt from."""
        for question in self.questions:
            if not question.answers:
                raise AnnotationError(
                    f"question {question.number} ({question.text!r} on {question.image}) has no answer; "
                    "name the annotations of its file"
                )

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, draw: Draw) -> Asked:
        question, settings, tokens = self.questions[draw.sample], self.settings, self.tokens
        pixels = read_pixels(question.image, settings.limits, self.image_size)
        ids = tokens.encode(normalise_question(question.text, settings.max_words), tokens.enc, settings.max_tokens)
        weights = question.weights(settings.single_answer_weight)
        longest = settings.max_tokens
        answers = [(tokens.encode(text, tokens.dec, longest), weight) for text, weight in weights.items()]
        return Asked(pixels, ids, answers)

    def collate(self, items: list[Asked]) -> QuestionBatch:
        """Put questions together."""
        ids, keep = self.tokens.batch([item.ids for item in items])  # (B, L), (B, L)
        answers = [(row, *answer) for row, item in enumerate(items) for answer in item.answers]
        written = self.tokens.batch([found for _, found, _ in answers] or [[]])  # (A, T), (A, T)
        return QuestionBatch(
            torch.stack([item.pixels for item in items]),
            ids,
            keep,
            *written,
            torch.tensor([weight for _, _, weight in answers]),
            torch.tensor([row for row, _, _ in answers], dtype=torch.long),
        )


class Answering(Objective[QuestionBatch]):
    """LM of the answers, each weighed by the share of people who gave it."""

    def __init__(self, model: VQA) -> None:
        super().__init__()
        self.model: VQA = model

    def forward(self, batch: QuestionBatch, done: float) -> Losses:
        """Return the weighted sum of the answers' losses, each summed over its tokens, divided by the questions."""
        question = self.model.ask(normalise(batch.pixels), batch.ids, batch.keep)
        # A question's keys and values are projected once, then copied for each of its answers.
        each = [(keys[batch.owners], values[batch.owners]) for keys, values in question]  # (A, H, L, K)
        logits = self.model.decode(batch.answers, each, batch.keep[batch.owners])  # (A, T, V)
        losses = language_loss(logits, batch.answers, batch.answers_keep, reduction="none").sum(dim=1)  # (A,)
        return {"answers": (batch.weights * losses).sum() / len(batch.ids)}
