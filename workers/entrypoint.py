"""What a submitted job runs: its driver, and the driver again if it died.

    python -m workers.entrypoint JOB SETTINGS --asked-in FOLDER --folder FOLDER --retries N

Ray starts a job only once. Here a driver that was killed, or that ended through a fault that may pass (a store or the
cluster does not answer, an unforeseen error), is started again a limited number of times, and goes on where the last
one was. An error that the user has to fix, a run with failed shards, and a job that was asked to stop are final:
another driver would end in the same way.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from capfilt.errors import StoppedError
from capfilt.runs.stop import stop_requested
from capfilt.signals import exit_on_sigterm

FIRST_WAIT, LONGEST_WAIT = 5.0, 60.0  # seconds before the driver is started again; doubled with each

_ENDS = (0, 1, 2, 3, StoppedError.exit_code)
# Ctrl-C, SIGHUP and SIGTERM, as a shell, Python and Ray report them: somebody ended the driver
_SIGNALLED = (130, 129, 143, -2, -1, -15, 15)


def main(arguments: Sequence[str]) -> int:
    """Run a job to its end and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m workers.entrypoint")
    parser.add_argument("job")
    parser.add_argument("settings", type=Path)
    parser.add_argument("--asked-in", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--retries", required=True, type=int)
    args, flags = parser.parse_known_args(arguments)
    settings = args.settings.absolute()
    if args.folder.is_dir():
        os.chdir(args.folder)  # relative paths mean the same as where the job was submitted
    else:
        _say(f"{args.folder} is not on this machine; relative paths in the settings start from {Path.cwd()}")
    with exit_on_sigterm():
        return _drive([args.job, str(settings), *flags], args.asked_in, args.retries)


def _drive(arguments: Sequence[str], asked_in: str, retries: int) -> int:
    """Run drivers until one comes to a final end or no restart is left, and return the job's exit code."""
    wait = FIRST_WAIT
    for left in range(retries, -1, -1):
        code = _run(arguments)
        if code in (*_ENDS, *_SIGNALLED):
            break
        ended = f"the driver was killed by signal {-code}" if code < 0 else f"the driver ended with exit code {code}"
        if left and not _stopping(asked_in):
            _say(f"{ended}; it is restarted in {wait:g} s ({left} restarts left)")
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        if _stopping(asked_in):  # or asked since: others see the death late, and the next driver would drop the request
            _say(f"{ended} and was asked to stop; submit the job again to go on")
            return StoppedError.exit_code
        if not left:
            _say(f"{ended} and is not restarted; submit the job again to go on")
    return code if code >= 0 else 128 - code


def _run(arguments: Sequence[str]) -> int:
    """Run one driver and return its exit code. Ray sends SIGTERM to all processes, so it need not be passed on."""
    code = Path(__file__).parents[1]
    paths = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")]))
    # -P: a folder named capfilt where the job was submitted must not be taken for the code
    command = [sys.executable, "-P", "-c", _DRIVER, *arguments]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}) as driver:  # noqa: S603, the words are ours
        return driver.wait()


_DRIVER = "import sys; from capfilt.cli.driver import drive; drive(sys.argv[1:])"


def _stopping(asked_in: str) -> bool:
    try:
        return stop_requested(asked_in)
    except OSError:
        return False  # a store that does not answer is no request


def _say(text: str) -> None:
    sys.stderr.write(f"capfilt: {text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
