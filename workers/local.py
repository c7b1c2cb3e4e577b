"""Run units one after the other in this process, without Ray."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from typing import TypeVar

from capfilt.errors import CapfiltError, FailedUnitsError
from capfilt.records import Unit
from capfilt.runs.stop import Stop
from workers.attempts import Attempts
from workers.events import NOBODY, Listener
from workers.faults import fault_of
from workers.isolation import Isolation
from workers.slots import Worker

R = TypeVar("R")


def run_local(
    make: Callable[[], Worker[R]],
    units: Iterable[Unit],
    isolation: Isolation | None = None,
    stop: Stop | None = None,
    listener: Listener = NOBODY,
) -> Generator[R, None, None]:
    """Yield the result of each unit; of one that was narrowed down, those of its pieces.

    Units are tried once, since a second try would meet the same process. Faults of data, disks and models that give no
    numbers are treated as in run_units. Any other error is the program's and stops the job with its traceback; a sample
    that kills or hangs its process does so to this one. Once a stop is asked for, no other unit begins.

    Raises:
        CapfiltError: the one that make raised, at the start.
        WorkerError: nothing but failures came back.
        FailedUnitsError: at the end, naming the units that failed.
    """
    attempts = Attempts(units, tries=1, outages=1, strikes=10, isolation=isolation, listener=listener)
    worker: Worker[R] | None = None
    stop = stop or Stop()
    while not stop.asked and (case := attempts.take(None, idle=True, alternative=False)) is not None:
        worker = worker or make()  # only once there is a unit, since models take time to load
        listener.see(replace(attempts.state(), in_hand=((case, "this process"),), ready=1, wanted=1))
        try:
            result = worker.run(case.unit)
        except (CapfiltError, OSError) as error:
            attempts.fail(case, fault_of(error), None)
        else:
            attempts.succeed(case)
            if not case.unit.trial:
                yield result
    if attempts.failed:
        raise FailedUnitsError(attempts.failed)
