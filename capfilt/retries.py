"""Asking an object store again, with longer and longer waits drawn by chance, until it answers or is given up.

A store's own client asks a few times within seconds. That bridges a lost packet, not a store that turns requests
away for a minute, nor an answer that is shorter than it says; and what it takes for lasting differs by client.
"""

import errno
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from capfilt.display import redact

T = TypeVar("T")

PATIENCE = 120.0  # seconds from the first attempt, after which an error is final; a client's own attempts count too
FIRST_WAIT = 0.5  # seconds, at most; doubled with each attempt
LONGEST_WAIT = 20.0  # seconds

# What comes again however often one asks. All other errors of a store may pass.
_LASTING = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError),
)
# In the names of classes of botocore and s3fs, which have none in common. FileExpired: the file was replaced.
_LASTING_NAMES = ("Credentials", "ParamValidation", "FileExpired")
# EINVAL: what s3fs makes of a request that is refused, also for its token; of HEAD, S3 says no more of an expired one.
_LASTING_CODES = (errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.ENOTSUP, errno.EROFS)
_GARBLED = ("BadDigest", "IncompleteBody")  # S3's codes for a request that was damaged on its way, of EINVAL too

# The status of an answer of a web server that says nothing of the file: it is at fault, or asks to come back later.
_AT_FAULT = 500  # and above
_LATER = (408, 425, 429)

logger = logging.getLogger(__name__)
_quiet: dict[tuple[str, str], float] = {}  # store and class of error -> when its next warning is due
_told = threading.Lock()


def patiently(call: Callable[[], T], path: str) -> T:
    """Return what a call gives; one that fails in a way that may pass is made again until PATIENCE is at an end.

    Each wait is logged as a warning, unless another thread of this process waits for the same store already.

    Args:
        call: asks the store for something; asking twice must have the effect of asking once.
        path: what it is about, for the log.
    """
    deadline = time.monotonic() + PATIENCE
    longest = FIRST_WAIT
    while True:
        try:
            return call()
        except Exception as raised:  # each store's client has error classes of its own
            error = _behind(raised)
            wait = random.uniform(0, longest)  # else all workers would come back at once
            left = deadline - time.monotonic()
            if not may_pass(error) or wait > left:
                raise error  # noqa: B904 (it is what the other was raised for)
            _warn(path, error, wait, left)
        time.sleep(wait)
        longest = min(2 * longest, LONGEST_WAIT)


def _warn(path: str, error: Exception, wait: float, left: float) -> None:
    store = "/".join(path.split("/")[:3]), type(error).__name__
    with _told:
        now = time.monotonic()
        if now < _quiet.get(store, 0.0):
            return
        _quiet[store] = now + wait
    told = redact(f"{type(error).__name__}: {error}")
    logger.warning("%s: %s; retrying in %.1f s, giving up in %.0f s", redact(path), told, wait, left)


def _behind(error: Exception) -> Exception:
    """Return the cause of an error, where it says more than the error does.

    fsspec says of every file of a web server that it is not there, also where the server did not answer or failed.
    """
    cause = error.__cause__
    of_http = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp.")
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) and of_http:
        status = getattr(cause, "status", _AT_FAULT)
        return cause if status >= _AT_FAULT or status in _LATER else error
    return error


def may_pass(error: Exception) -> bool:
    """Return whether a store may answer the same request differently a little later."""
    if isinstance(error, _LASTING) or any(name in type(error).__name__ for name in _LASTING_NAMES):
        return False
    answer = getattr(error.__cause__, "response", None)  # of botocore's ClientError
    if isinstance(answer, dict) and answer.get("Error", {}).get("Code") in _GARBLED:
        return True
    return not (isinstance(error, OSError) and error.errno in _LASTING_CODES)
