"""What a training job consists of: an objective, a training set, and what is written at the end."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from capfilt.training.objectives import Objective

Data = TypeVar("Data", bound=tuple)  # type: ignore[type-arg]  # a NamedTuple of tensors, of any fields
Data_co = TypeVar("Data_co", bound=tuple, covariant=True)  # type: ignore[type-arg]


class TrainingSet(Protocol[Data_co]):
    """The data, in batches, each a NamedTuple of tensors.

    The global batch of a step depends on the step alone, not on the number of shares.
    """

    epoch_steps: int  # steps in which every sample is seen once

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many samples cannot be trained on, by reason."""
        ...

    def __len__(self) -> int:
        """Return how many samples are trained on."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what has been found out about the samples so far; of several ranks, the first one's is saved."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Resume with what state_dict returned."""
        ...

    def batches(self, steps: range, share: int, shares: int) -> Iterator[Data_co]:
        """Yield, for each step, one of equally large shares of its batch."""
        ...


@dataclass(frozen=True)
class Job(Generic[Data]):
    """A model in training, as the loop sees it."""

    objective: Objective[Data]
    data: TrainingSet[Data]
    write: Callable[[Path], None]  # writes the trained model to a folder, config.json last
    idle_parameters: bool = False  # whether some parameters have no gradient in some steps
