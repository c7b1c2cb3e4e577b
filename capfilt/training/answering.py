"""Training a model to answer questions.

Shapes: B questions, A answers of them, L question tokens, T answer tokens, V vocabulary.
Source: BLIP, arXiv 2201.12086, section 5.3; the weights of answers come from its released code.
"""

from capfilt.med.losses import language_loss
from capfilt.med.vision import normalise
from capfilt.med.vqa import VQA
from capfilt.training.objectives import Losses, Objective
from capfilt.training.questions import QuestionBatch


class Answering(Objective[QuestionBatch]):
    """LM of the answers, each weighted by the share of people who gave it."""

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
