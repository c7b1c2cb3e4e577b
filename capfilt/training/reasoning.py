"""Training a model to judge sentences about two images.

Shapes: B sentences.
Source: BLIP, arXiv 2201.12086, section 5.4.
"""

import torch.nn.functional as F

from capfilt.med.nlvr2 import NLVR2
from capfilt.med.vision import normalise
from capfilt.training.objectives import Losses, Objective
from capfilt.training.statements import StatementBatch


class Reasoning(Objective[StatementBatch]):
    """Cross-entropy of the labels true and false."""

    def __init__(self, model: NLVR2) -> None:
        super().__init__()
        self.model: NLVR2 = model

    def forward(self, batch: StatementBatch, done: float) -> Losses:
        """Return the mean cross-entropy of the sentences, in nats; log(2) for a model that guesses."""
        logits = self.model.judge(normalise(batch.pixels), batch.ids, batch.keep)  # (B, 2)
        return {"nlvr2": F.cross_entropy(logits.float(), batch.labels)}
