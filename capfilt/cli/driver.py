"""The command line as the driver of a submitted job."""

import sys
import traceback
from collections.abc import Sequence

from capfilt.cli.main import cli

CRASHED = 70  # exit code of a driver that met an unforeseen error, as in sysexits.h


def drive(arguments: Sequence[str]) -> None:
    """Run a command; an unforeseen error, unlike in the command line itself, gets an exit code of its own."""
    try:
        cli(list(arguments))
    except Exception:  # of any type: only its exit code tells the job that this is a crash, to be retried
        traceback.print_exc()
        sys.exit(CRASHED)
