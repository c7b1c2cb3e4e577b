"""Steps of a model captured as on a GPU, without one."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from capfilt.med.decoding import DecodingState
from capfilt.med.graphs import Replay


class Steps:
    """Captures steps as a GPU does: from then on they are done again on the same tensors, whatever is passed."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, step: Callable[[], Any]) -> tuple[Any, Replay]:
        self.captured += 1
        step()  # a GPU's libraries set themselves up
        first = step()

        def replay() -> None:
            self.replayed += 1
            for mine, its in zip(tensors(first), tensors(step()), strict=True):
                mine.copy_(its)  # what a graph makes lies where it lay when it was captured

        return first, replay


def tensors(found: Any) -> list[torch.Tensor]:
    if isinstance(found, DecodingState):
        found = [
            found.ids,
            found.logprobs,
            found.done,
            found.image,
            [(each.keys, each.values) for each in found.caches],
        ]
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
