"""The dashboard of a cluster: a connection to its Jobs API, whose failures become errors of one line."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

from aiohttp import ClientError
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from capfilt.display import CREDENTIALS, has_credentials, redact
from capfilt.errors import ConfigError, JobError, NoAnswerError
from capfilt.retries import may_pass
from workers.address import TOKEN, require_answer

ANSWER = 60.0  # seconds that the Jobs API may take for an answer, or for the next part of it

_ADDRESS = "RAY_API_SERVER_ADDRESS"
# Errors of Ray that are not the request's fault: the server failed, or the connection broke. A job id that somebody
# else has just taken is no failure of the server, though Ray says so.
_PASSING = re.compile(
    r"Request failed with status code 5\d\d\b(?!.* already exists)|WebSocket (connection closed|error)\b", re.DOTALL
)
_TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's own client, but with a timeout: it would wait for an answer for ever."""

    def _do_request(self, method: str, endpoint: str, **options: object) -> object:
        return super()._do_request(method, endpoint, **{"timeout": ANSWER} | options)


def connect(address: str) -> JobSubmissionClient:
    """Return a client of the Jobs API of a cluster. Errors as in Jobs."""
    if has_credentials(address):
        raise ConfigError(f"--address {redact(address)}: {CREDENTIALS}")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--address: takes the URL of the dashboard, such as http://127.0.0.1:8265; found {address}")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)  # else they log each upload
    if not getproxies():  # else requests go to the proxy, not to the host itself
        port = parts.port or (443 if parts.scheme == "https" else 80)
        require_answer(f"{parts.hostname}:{port}", "--address", ", or open a tunnel to it (ssh -L 8265:127.0.0.1:8265)")
    with told(f"; is {address} a dashboard? nodes and drivers have another port, 6379"), _leading_to(address):
        return _Client(address)


@contextmanager
def _leading_to(address: str) -> Iterator[None]:
    """Set the address in the environment, where Ray looks before it takes its argument."""
    before = os.environ.get(_ADDRESS)
    os.environ[_ADDRESS] = address
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ADDRESS]
        else:
            os.environ[_ADDRESS] = before


def in_a_line(text: str) -> str:
    """Return what Ray says in many lines, such as a traceback, by its first and its last, fit to be shown."""
    lines = [line.strip() for line in redact(text).splitlines() if line.strip(" .")]
    return " ... ".join([*lines[:1], *lines[1:][-1:]])[:600].rstrip(".")


@contextmanager
def told(remedy: str = "") -> Iterator[None]:
    """Turn a failure of the Jobs API into an error with a message of one line, which ends with what to do."""
    try:
        yield
    except AuthenticationError as error:
        raise JobError(f"the cluster's Jobs API: {error.message.splitlines()[0]}; {TOKEN}") from error
    except (RuntimeError, OSError, ClientError) as error:
        what = in_a_line(str(error).replace("\\n", "\n")) or type(error).__name__
        passing = may_pass(error) or _PASSING.match(str(error))
        raise (NoAnswerError if passing else JobError)(f"the cluster's Jobs API: {what}{remedy}") from error
