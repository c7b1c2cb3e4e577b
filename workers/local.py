"""Run units one after the other in this process, without Ray."""

from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

from capfilt.errors import CapfiltError, FailedUnitsError
from capfilt.records import Unit
from workers.attempts import Case
from workers.pool import Worker

R = TypeVar("R")


def run_local(make: Callable[[], Worker[R]], units: Iterable[Unit]) -> Generator[R, None, None]:
    """Yield the result of each unit.

    A unit fails alone when its data or its disk is at fault. Any other error is one of the program: it
    stops the job with its traceback, since there is no other process to try again in.

    Raises:
        CapfiltError: the one that make raised, at the start.
        FailedUnitsError: at the end, naming the units that failed.
    """
    failed = []
    worker: Worker[R] | None = None
    for unit in units:
        worker = worker or make()  # only when there is a unit: models take their time to load
        try:
            result = worker.run(unit)
        except (CapfiltError, OSError) as error:
            failed.append(f"{Case(unit)}: {type(error).__name__}: {error}")
        else:
            yield result
    if failed:
        raise FailedUnitsError(failed)
