"""Is there anything at the address of a cluster? Ray itself tries for many minutes, and says only at the end."""

import re
import socket

from capfilt.errors import NoAnswerError

PATIENCE = 10.0  # seconds
# "ray start" asks for a token where it finds one, which Ray leaves when it runs on a machine alone; clients do not by
# themselves give it.
TOKEN = (
    "for a cluster that asks for a token set RAY_AUTH_MODE=token, with its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)


def require_answer(
    address: str, key: str = "cluster.address", or_else: str = ", or set cluster.address: local"
) -> None:
    """Raise NoAnswerError if nothing takes a connection at host:port or ray://host:port; others have no such place.

    Args:
        address: as Ray takes it.
        key: where it was given, for the message.
        or_else: what else can be done than to start a cluster or to give its address.
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
