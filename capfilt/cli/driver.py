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
    except Exception:  # of whatever type: only by the code can the job tell a crash, to be retried, from an end
        traceback.print_exc()
        sys.exit(CRASHED)
