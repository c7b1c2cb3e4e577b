"""A connection to Ray: a private one on this machine, or to a cluster."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
from capfilt.errors import ConfigError, NoAnswerError, StoppedError, WorkerError
from capfilt.runs.stop import Stop
from capfilt.signals import exit_on_sigterm
from workers.address import TOKEN, ended_without_head, require_answer
from workers.attempts import MAX_LOSSES
from workers.client import ended_without_server, is_outside
from workers.slots import last_words, unbuilt

R = TypeVar("R")

logger = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks for a request to stop
PATIENCE = 60.0  # seconds without a result of work on a worker after which a warning says so
STORE_BYTES = 100 * 2**20  # of a private cluster's object store, which holds only units and their results,
PIXEL_BYTES = 750 * 2**20  # plus this for each worker whose batches of pixels pass through it


@contextmanager
def session(cluster: Cluster) -> Iterator[None]:
    """Connect to Ray within the block, or start it on this machine with exactly what the workers need.

    An existing connection is used as it is, and kept, so that several calls of run_units can share one.

    Raises:
        NoAnswerError: no cluster answers at the address.
        ConfigError: another service answers there, the cluster refuses us without its token or has another version of
            Ray, or this machine has too few GPUs or other labels.
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
    # A private cluster warns only of how its token is kept, which matters where others can reach the cluster.
    level = logging.ERROR if local else logging.WARNING
    with exit_on_sigterm():
        with _refusals(cluster.address), _without_handlers_of_ray():
            _knock(cluster.address)
            ray.init(cluster.address, log_to_driver=False, logging_level=level, **private if local else {})
        with exit_on_sigterm(), _ended_without_head(cluster):  # again, since Ray's core has set a handler of its own
            try:
                if local:
                    _check_machine(cluster)
                yield
            finally:
                ray.shutdown()


def _ended_without_head(cluster: Cluster) -> AbstractContextManager[None]:
    if is_outside():
        return ended_without_server(cluster.address)
    return ended_without_head(cluster.address, ray.get_runtime_context().gcs_address)


def _knock(address: str) -> None:
    """Ask the head of a cluster for its id, once. ray.init asks up to twenty times, whatever the answer.

    If no head answers, this takes 40 seconds, 30 of which are RAY_py_gcs_connect_timeout_s. A head that is only just
    starting accepts no connections, which require_answer has reported.
    """
    if address.startswith("ray://"):
        return
    head = canonicalize_bootstrap_address(address)
    if head is not None:  # else Ray is to be started, or none is found, as ray.init reports
        GcsClient(address=head)


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """Turn a cluster's refusal into an error that says why in a line."""
    try:
        yield
    except AuthenticationError as error:
        why = error.message.partition("\n")[0]
        raise ConfigError(f"cluster.address: {address} refuses the connection ({why}); {TOKEN}") from error
    except RpcError as error:
        kind = ConfigError if error.rpc_code == GRPC_STATUS_CODE_UNIMPLEMENTED else NoAnswerError
        raise kind(
            f"cluster.address: {address} does not answer as the head of a Ray cluster ({error}); give the address that "
            "ray start --head prints, or that of its client server with ray:// before it"
        ) from error
    except ConnectionError as error:
        first, *others = str(error).strip().splitlines() or [""]
        why = " ".join([first, *others[-1:]])  # of several lines, the last is the reason of a ray:// server
        raise NoAnswerError(f"cluster.address: {address} refuses the connection ({why}); {TOKEN}") from error
    except RuntimeError as error:
        if not str(error).startswith("Version mismatch"):
            raise
        why = " ".join(str(error).split())
        raise ConfigError(f"cluster.address: {address}: {why}; install here what the cluster has") from error


@contextmanager
def _without_handlers_of_ray() -> Iterator[None]:
    """Keep Ray from setting handlers of SIGTERM: that of ray.init exits with code 15, and that of its nodes with 1.

    A node that was started still ends, by what Ray does when a process exits. In the last moment of a start,
    once Ray's core is built, the core's own handler, which is not Python's, prints a trace and calls ours.
    """
    own = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = own


def on_a_worker(work: Callable[[], R], cluster: Cluster, stop: Stop | None = None) -> R:
    """Call work in a process with the resources of an actor, again if its node is lost, and return its result.

    Args:
        work: pickled, so its modules must be installed on every node.
        cluster: where it runs.
        stop: once it is asked for, work that has no result yet is given up, whether it waits for room or is at it.

    Raises:
        CapfiltError: the one that work raised.
        StoppedError: it was asked to stop.
        WorkerError: work raised something else (see unbuilt), its process died, or node after node was lost (PASSING).
    """
    with session(cluster):
        task = ray.remote(_call).options(
            num_cpus=cluster.cpus_per_worker,
            num_gpus=cluster.gpus_per_worker,
            label_selector=cluster.labels,
            max_retries=0,
        )
        losses, patience = 0, time.monotonic() + PATIENCE
        while True:
            try:
                result = task.remote(work)
                while not ray.wait([result], timeout=LOOK, fetch_local=False)[0]:
                    if stop is not None and stop.asked:
                        ray.cancel(result, force=True)
                        raise StoppedError("a worker was being tried, or found no room, and no unit was begun")
                    if time.monotonic() > patience:
                        patience = time.monotonic() + PATIENCE
                        logger.warning("a worker is being tried, or finds no room; %s", asked_and_free(cluster))
                return cast("R", ray.get(result))
            except RayTaskError as error:
                raise unbuilt(error.cause, "tried") from None
            except NodeDiedError as error:
                losses += 1
                if losses > MAX_LOSSES:
                    raise unbuilt(ConnectionError(last_words(error)), "tried") from None
                logger.warning("a worker is tried again, loss %d of %d: %s", losses, MAX_LOSSES, last_words(error))
            except RayError as error:
                raise WorkerError(f"no worker can be tried: {last_words(error)}") from None


def _call(work: Callable[[], R]) -> R:
    return work()


class Node(NamedTuple):
    """A node of a cluster."""

    resources: dict[str, float]  # including those in use
    allowed: bool  # whether cluster.labels allow the models on it

    def holds(self, cluster: Cluster) -> bool:
        """Return whether a worker has room on it while nothing else runs there."""
        asked = {"CPU": cluster.cpus_per_worker, "GPU": cluster.gpus_per_worker}
        return self.allowed and all(self.resources.get(name, 0.0) >= count for name, count in asked.items())


def nodes(cluster: Cluster) -> list[Node]:
    """Return the nodes of a cluster. Errors as in session."""
    with session(cluster):
        there = [node for node in ray.nodes() if node["Alive"]]
        return [Node(node["Resources"], allows(node["Labels"], cluster.labels)) for node in there]


def allows(labels: dict[str, str], selectors: dict[str, str]) -> bool:
    """Return whether Ray would place an actor with these label selectors on a node with these labels."""
    return bool(node_labels_match_selector(labels, selectors))


def asked_and_free(cluster: Cluster) -> str:
    """Return what a job asks of Ray, and what Ray has free, for people."""
    free, each = ray.available_resources(), devices(cluster.cpus_per_worker, cluster.gpus_per_worker)
    asked = f"{counted(cluster.workers, 'worker')}, each with {each}{on_nodes_with(cluster.labels)}"
    told = f"cluster: {asked}; free: {devices(free.get('CPU', 0), free.get('GPU', 0))}"
    if any(node.holds(cluster) for node in nodes(cluster)):
        return told
    return f"{told}; no node has room for one, whatever is free: lower what a worker asks for, or add nodes"


def _check_machine(cluster: Cluster) -> None:
    if not any(allows(node["Labels"], cluster.labels) for node in ray.nodes()):
        raise ConfigError(
            f"cluster.labels: this machine is not {cluster.labels}; remove them, or name a cluster's address"
        )
    wanted, found = cluster.workers * cluster.gpus_per_worker, ray.cluster_resources().get("GPU", 0)
    if wanted > found:
        workers = counted(cluster.workers, "worker")
        raise ConfigError(f"cluster: it takes {counted(wanted, 'GPU')} for {workers}, this machine has {found:g}")
