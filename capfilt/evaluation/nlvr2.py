"""NLVR2: how often a sentence about two images is judged correctly.

Source: Suhr et al., arXiv 1811.00491; BLIP, arXiv 2201.12086, section 5.4.
"""

import torch

from capfilt.config.tasks import NLVR2Settings
from capfilt.med.nlvr2 import NLVR2
from capfilt.med.vision import normalise
from capfilt.training.passes import in_order
from capfilt.training.statements import Statements


@torch.inference_mode()
def evaluate_nlvr2(model: NLVR2, examples: Statements, settings: NLVR2Settings) -> dict[str, object]:
    """Judge all sentences, and return the accuracy in percent."""
    device = next(model.parameters()).device
    right = 0
    for batch in in_order(examples, settings.batch_size, settings.seed, examples.settings.workers):
        logits = model.judge(normalise(batch.pixels.to(device)), batch.ids.to(device), batch.keep.to(device))  # (B, 2)
        right += int((logits.argmax(dim=1).cpu() == batch.labels).sum())
    return {"sentences": len(examples), "accuracy": 100 * right / len(examples)}
