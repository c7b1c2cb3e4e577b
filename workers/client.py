"""Ray's client: the connection of a driver outside of the cluster, at an address that begins with ray://."""

from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray.util.client
from ray._private import auto_init_hook

from capfilt.errors import CapfiltError, NoAnswerError


def is_outside() -> bool:
    """Return whether this process is connected to its cluster by Ray's client."""
    return bool(ray.util.client.ray.is_connected())


@contextmanager
def ended_without_server(address: str) -> Iterator[None]:
    """Raise NoAnswerError in place of whatever Ray's client raises within the block once it has lost its server.

    The client first tries to reconnect for half a minute. Ray would take the next call for the first of a program, and
    start a cluster on this machine for it.
    """
    own, auto_init_hook.enable_auto_connect = auto_init_hook.enable_auto_connect, False
    try:
        yield
    except Exception as error:  # a ConnectionError, one of gRPC, or a bare Exception
        if isinstance(error, CapfiltError) or _is_served():
            raise
        raise NoAnswerError(
            f"cluster.address: {address}: the connection to the cluster is lost; when it answers again, run the same "
            "again to go on"
        ) from error
    finally:
        auto_init_hook.enable_auto_connect = own


def _is_served() -> bool:
    try:
        ray.nodes()
    except Exception:  # as above
        return False
    return True
