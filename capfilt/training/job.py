"""What a training job is made of: what is minimised, what is trained on, and what is written at the end."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from capfilt.training.objectives import Objective

Data = TypeVar("Data", bound=tuple)  # type: ignore[type-arg]  # a NamedTuple of tensors, of any fields
Data_co = TypeVar("Data_co", bound=tuple, covariant=True)  # type: ignore[type-arg]


class TrainingSet(Protocol[Data_co]):
    """What is trained on, in batches, each a NamedTuple of tensors.

    What a step is trained on follows from the step alone: its batch is the same however many share it.
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
        """Return what was learned of the samples by now; where several ranks share it, the first one's is kept."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with what was learned of them before."""
        ...

    def batches(self, steps: range, share: int, shares: int) -> Iterator[Data_co]:
        """Yield, for each step, one of equally large shares of its batch."""
        ...


@dataclass(frozen=True)
class Job(Generic[Data]):
    """A model in training: the loop knows nothing else about it."""

    objective: Objective[Data]
    data: TrainingSet[Data]
    write: Callable[[Path], None]  # writes the trained model to a folder, config.json last
    idle_parameters: bool = False  # whether there are steps in which some parameters have no gradient
