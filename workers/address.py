"""Does anything answer at a cluster's address?

Ray takes many minutes to say that nothing does. If the head is lost later, Ray's core ends the process of the driver.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from capfilt.background import in_background
from capfilt.errors import NoAnswerError
from capfilt.logs import say_error
from capfilt.signals import end_process

PATIENCE = 10.0  # seconds
LOOK = 5.0  # seconds between two looks for the head of a cluster
# Seconds before the moment at which Ray's core, without its head, ends the process.
ORDERLY_END = 30.0  # when the driver is told to end in good order
LAST_MOMENT = 10.0  # when it is ended anyway: it may wait within Ray, where no signal reaches it
# A cluster asks for a token if "ray start" finds one, such as Ray leaves behind when it runs on a single machine;
# clients do not send it by themselves.
TOKEN = (
    "for a cluster that asks for a token set RAY_AUTH_MODE=token, with its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)


def require_answer(
    address: str, key: str = "cluster.address", or_else: str = ", or set cluster.address: local"
) -> None:
    """Raise NoAnswerError if nothing accepts a connection at host:port or ray://host:port; others are not checked.

    Args:
        address: as Ray takes it.
        key: the setting or option that gave it, for the message.
        or_else: what the message advises besides starting a cluster or giving its address.
    """
    place = re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)
    if place is None:
        return
    try:
        socket.create_connection((place[1].strip("[]"), int(place[2])), PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise NoAnswerError(
            f"{key}: {address} does not answer ({error}); start the cluster (ray start --head), give its "
            f"address{or_else}"
        ) from None


@contextmanager
def ended_without_head(address: str, head: str) -> Iterator[None]:
    """End the block with NoAnswerError when the head of its cluster is lost, or the process if that takes too long.

    Args:
        address: as Ray takes it, for the message.
        head: host:port.
    """
    limit = float(os.environ.get("RAY_gcs_rpc_server_reconnect_timeout_s", "60")) - ORDERLY_END  # noqa: SIM112, Ray's
    error = NoAnswerError(
        f"cluster.address: {address}: the head of the cluster ({head}) has not answered for {limit:g} s; "
        "when it is back, run the same again to go on"
    )
    lost = threading.Event()
    with in_background(partial(_watch, head, limit, lost, error)):
        try:
            yield
        except SystemExit:
            if not lost.is_set():
                raise
            raise error from None


def _watch(head: str, limit: float, lost: threading.Event, error: NoAnswerError, done: threading.Event) -> None:
    answered = time.monotonic()
    while not done.wait(LOOK):
        try:
            require_answer(head)
            answered = time.monotonic()
        except NoAnswerError:
            if time.monotonic() - answered > limit:
                break
    else:
        return
    lost.set()
    end_process()
    if not done.wait(ORDERLY_END - LAST_MOMENT):
        say_error(f"Error: {error}")
        os._exit(error.exit_code)
