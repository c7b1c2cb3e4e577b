"""Does anything answer at a cluster's address? Ray itself tries for many minutes before it says that nothing does."""

import re
import socket

from capfilt.errors import NoAnswerError

PATIENCE = 10.0  # seconds
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
