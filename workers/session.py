"""A connection to Ray: a private one on this machine, or to a cluster."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar, cast

import ray
from ray._private import utils as ray_utils
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import (  # type: ignore[attr-defined]
    GRPC_STATUS_CODE_UNIMPLEMENTED,
    GcsClient,
    node_labels_match_selector,
)
from ray.exceptions import AuthenticationError, NodeDiedError, RayError, RayTaskError, RpcError

from capfilt.config import Cluster
from capfilt.display import counted, devices, on_nodes_with
from capfilt.errors import ConfigError, NoAnswerError, WorkerError
from workers.address import TOKEN, require_answer
from workers.attempts import MOST_LOSSES
from workers.signals import exit_on_sigterm
from workers.slots import last_words, unbuilt

R = TypeVar("R")

logger = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds without a result of work on a worker until that is said
STORE_BYTES = 100 * 2**20  # of a private cluster's object store, which holds nothing but units and their results,
PIXEL_BYTES = 750 * 2**20  # and these for each worker whose batches of pixels come through it


@contextmanager
def session(cluster: Cluster) -> Iterator[None]:
    """Connect to Ray for a while, or start it on this machine with exactly what the workers need.

    A connection that exists is used as it is, and stays; so several calls of run_units can share one.

    Raises:
        NoAnswerError: no cluster answers at the address.
        ConfigError: another service does, or the cluster lets nobody in without its token or has another Ray; this
            machine has too few GPUs or other labels.
    """
    if ray.is_initialized():
        yield
        return
    private = {
        "num_cpus": max(1, math.ceil(cluster.workers * (cluster.cpus_per_worker + cluster.decode_cpus))),
        "num_gpus": None if cluster.gpus_per_worker else 0,  # None counts the machine's own
        "include_dashboard": False,
        "object_store_memory": STORE_BYTES + (cluster.workers * PIXEL_BYTES if cluster.decode_cpus else 0),
    }
    local = cluster.address == "local"
    require_answer(cluster.address)
    # A private cluster warns of nothing but how its token is kept, which is of use where others can reach it.
    level = logging.ERROR if local else logging.WARNING
    with exit_on_sigterm():
        with _refusals(cluster.address), _without_handlers_of_ray():
            _knock(cluster.address)
            ray.init(cluster.address, log_to_driver=False, logging_level=level, **private if local else {})
        with exit_on_sigterm():  # anew, since Ray's core sets one behind Python's back, which shows a trace
            try:
                if local:
                    _check_machine(cluster)
                yield
            finally:
                ray.shutdown()


def _knock(address: str) -> None:
    """Ask the head of a cluster for its id, once. ray.init asks up to twenty times, whatever it is answered.

    Where no head answers, that takes 40 seconds, 30 of which are RAY_py_gcs_connect_timeout_s. A head that is only just
    being started does not take connections, which require_answer tells.
    """
    if address.startswith("ray://"):
        return
    head = canonicalize_bootstrap_address(address)
    if head is not None:  # else Ray is to be started, or none is found, which ray.init tells
        GcsClient(address=head)


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """Say in a line why a cluster does not let us in."""
    try:
        yield
    except AuthenticationError as error:
        why = error.message.partition("\n")[0]
        raise ConfigError(f"cluster.address: {address} lets nobody in ({why}); {TOKEN}") from error
    except RpcError as error:
        kind = ConfigError if error.rpc_code == GRPC_STATUS_CODE_UNIMPLEMENTED else NoAnswerError
        raise kind(
            f"cluster.address: {address} does not answer as the head of a Ray cluster ({error}); give the address that "
            "ray start --head tells, or that of its client server with ray:// before it"
        ) from error
    except ConnectionError as error:
        why = str(error).partition("\n")[0]
        raise NoAnswerError(f"cluster.address: {address} lets nobody in ({why}); {TOKEN}") from error
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        why = " ".join(str(error).split())
        raise ConfigError(f"cluster.address: {address}: {why}; install here what the cluster has") from error


@contextmanager
def _without_handlers_of_ray() -> Iterator[None]:
    """Keep Ray from setting a handler of SIGTERM: that of ray.init exits with code 15, and one of its nodes with 1.

    A node that was begun is ended all the same, by what Ray does at the end of a process. In the last moment of a
    start, once Ray's core is built, the handler of that, which is not Python's, shows a trace and calls ours.
    """
    own = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = own


def on_a_worker(work: Callable[[], R], cluster: Cluster) -> R:
    """Call work in a process that has what an actor has, anew where its node is lost, and return what it returns.

    Args:
        work: is pickled, so its modules must be installed on every node.
        cluster: where.

    Raises:
        CapfiltError: the one that work raised.
        WorkerError: work raised something else (see unbuilt), its process died, or node after node was lost (PASSING).
    """
    with session(cluster):
        task = ray.remote(_call).options(
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            label_selector=cluster.labels,
            max_retries=0,
        )
        losses = 0
        while True:
            try:
                result = task.remote(work)
                while not ray.wait([result], timeout=PATIENCE, fetch_local=False)[0]:
                    logger.warning("a worker is being tried, or finds no room; %s", asked_and_free(cluster))
                return cast("R", ray.get(result))
            except RayTaskError as error:
                raise unbuilt(error.cause, "tried") from None
            except NodeDiedError as error:
                losses += 1
                if losses > MOST_LOSSES:
                    raise unbuilt(ConnectionError(last_words(error)), "tried") from None
                logger.warning("a worker is tried anew, loss %d of %d: %s", losses, MOST_LOSSES, last_words(error))
            except RayError as error:
                raise WorkerError(f"no worker can be tried: {last_words(error)}") from None


def _call(work: Callable[[], R]) -> R:
    return work()


class Node(NamedTuple):
    """A node of a cluster."""

    resources: dict[str, float]  # those in use included
    allowed: bool  # for the models, by cluster.labels


def nodes(cluster: Cluster) -> list[Node]:
    """Return the nodes of a cluster. Errors as in session."""
    with session(cluster):
        there = [node for node in ray.nodes() if node["Alive"]]
        return [Node(node["Resources"], allows(node["Labels"], cluster.labels)) for node in there]


def allows(labels: dict[str, str], selectors: dict[str, str]) -> bool:
    """Return whether Ray would put an actor with some label selectors on a node with some labels."""
    return bool(node_labels_match_selector(labels, selectors))


def asked_and_free(cluster: Cluster) -> str:
    """Return what a job asks of Ray, and what it has free, for people."""
    free, each = ray.available_resources(), devices(cluster.cpus_per_worker, cluster.gpus_per_worker)
    asked = f"{counted(cluster.workers, 'worker')}, each with {each}{on_nodes_with(cluster.labels)}"
    return f"cluster: {asked}; free: {devices(free.get('CPU', 0), free.get('GPU', 0))}"


def _check_machine(cluster: Cluster) -> None:
    if not any(allows(node["Labels"], cluster.labels) for node in ray.nodes()):
        raise ConfigError(
            f"cluster.labels: this machine is not {cluster.labels}; remove them, or name a cluster's address"
        )
    wanted, found = cluster.workers * cluster.gpus_per_worker, ray.cluster_resources().get("GPU", 0)
    if wanted > found:
        workers = counted(cluster.workers, "worker")
        raise ConfigError(f"cluster: it takes {counted(wanted, 'GPU')} for {workers}, this machine has {found:g}")
