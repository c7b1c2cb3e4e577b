"""What a loader's processes hand over comes as it was, and no process outlives its batches."""

from collections.abc import Iterator
from itertools import count
from multiprocessing import active_children

import pytest
from torch.utils.data import DataLoader, IterableDataset

from capfilt.errors import AnnotationError
from capfilt.training.loading import Failure, taken, unchanged


class Numbers(IterableDataset):
    """Numbers without end, or up to one that cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __iter__(self) -> Iterator[int | Failure]:
        for number in count():
            yield AnnotationError(f"{number}.jpg: is broken") if number == self.broken else number


def numbers(**options: int) -> Iterator[int]:
    return taken(iter(DataLoader(Numbers(**options), batch_size=None, collate_fn=unchanged, num_workers=1)))


def test_a_failure_comes_in_its_turn_and_leaves_no_process():
    made = numbers(broken=2)
    assert [next(made), next(made)] == [0, 1]
    assert active_children()
    with pytest.raises(AnnotationError, match=r"^2\.jpg: is broken$") as failure:
        next(made)
    assert failure.traceback  # which is held, and with it all that its frames hold
    assert not active_children()


def test_who_leaves_early_leaves_no_process():
    made = numbers()
    assert next(made) == 0
    del made
    assert not active_children()
