"""Bootstrap jobs in processes of their own, which a test can kill, and what they left."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from capfilt.runs.lease import RENEW_EVERY, hold_lease

TESTS = Path(__file__).parent
ERRORS = "driver.err"  # in the folder of a job: what its driver writes to standard error


def tables(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all tables of a ledger; the records beside them hold times."""
    root = folder / "run/ledger"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()} | {
        str(path.relative_to(root)): b"" for path in root.rglob("*.json")
    }


def start_driver(
    folder: Path, local: bool, delay: float = 0.1, renewed: float = RENEW_EVERY
) -> "subprocess.Popen[bytes]":
    """Start the job in a process of its own, with a Ray of its own; it renews its lease after so many seconds."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # not ignored, as in the background
        "from pathlib import Path; from functools import partial\n"
        "from fakes import NAMES, build_fakes, job_config; from pipelines import bootstrap\n"
        f"from capfilt.runs import lease; lease.RENEW_EVERY = {renewed}\n"
        f"bootstrap.run(job_config(Path({str(folder)!r})), partial(build_fakes, delay={delay}), NAMES, local={local})"
    )
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    with (folder / ERRORS).open("ab") as errors:
        return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=errors)


def displace(root: str, is_over: Callable[[], object]) -> None:
    """Take the lease of a driver, as --force does, until that is over; a renewal at the same moment takes it back."""
    deadline = time.monotonic() + 60
    while not is_over():
        with hold_lease(root, force=True) as lease:
            while lease.is_held and not is_over():
                assert time.monotonic() < deadline, "the driver does not end"
                time.sleep(0.02)


def wait_until_told(folder: Path, text: str) -> None:
    """Wait until a driver says something on standard error."""
    deadline = time.monotonic() + 60
    while text not in (folder / ERRORS).read_text():
        assert time.monotonic() < deadline, f"the job never says {text!r}"
        time.sleep(0.02)


def wait_for_commits(folder: Path, more: int, driver: "subprocess.Popen[bytes]") -> None:
    def commits() -> int:
        return len(list((folder / "run").glob("ledger/*/**/*.json")))

    target = commits() + more
    wait_until(lambda: commits() >= target, driver)


def wait_until(condition: Callable[[], bool], driver: "subprocess.Popen[bytes]") -> None:
    """Wait for something that a driver does, or for its end."""
    deadline = time.monotonic() + 300  # an import takes a minute on a busy machine
    while not condition() and driver.poll() is None:
        assert time.monotonic() < deadline, "the job does not get there"
        time.sleep(0.02)
