"""The driver of a job: the only one in its folder, and ready to be stopped."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from capfilt import storage
from capfilt.runs.lease import Lease, hold_lease, swept
from capfilt.runs.stop import UNITS, Stop, heed_stop
from capfilt.signals import end_process, exit_on_sigterm


@contextmanager
def driving(
    root: str, meaning: str = UNITS, stop: Stop | None = None, *, force: bool | None = None
) -> Iterator[tuple[Lease, Stop]]:
    """Be the only driver of a job within the block, and follow requests to stop; SIGTERM leaves no lease either.

    Files in the making that dead drivers left in the folder itself are removed, unless another driver may be alive.

    Args:
        root: folder of the job.
        meaning: what a stop does to the job, for people.
        stop: as in heed_stop.
        force: as in hold_lease.

    Raises:
        RunError: another driver is at work on the job, or has taken its lease.
    """
    with (
        exit_on_sigterm(),
        hold_lease(root, force, end_process) as lease,
        nullcontext() if force else swept(lease, partial(storage.sweep, root, deep=False)),
        heed_stop(root, end_process, lambda: lease.is_held, meaning, stop) as stop,
    ):
        yield lease, stop
