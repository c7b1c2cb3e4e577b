"""Whether there is room for the workers of a job, on the cluster at its address or on this machine."""

import math
from typing import TYPE_CHECKING

import torch

from capfilt.config import Cluster
from capfilt.display import counted, devices, on_nodes_with
from capfilt.errors import ConfigError
from workers.address import require_answer

if TYPE_CHECKING:
    from workers.session import Node  # Ray takes seconds to import


def find_room(cluster: Cluster) -> str:
    """Return in a line where the workers would run. Nothing is started.

    Resources that other jobs use count as room; an autoscaling cluster may have more than it shows. The labels of this
    machine are only checked when the job begins, since only Ray knows them.

    Raises:
        NoAnswerError: nothing answers at the address.
        ConfigError: there is too little room.
    """
    if cluster.address == "local":
        room = _most(torch.cuda.device_count(), cluster.gpus_per_worker)  # CPUs are shared as they are
        where, more = "on this machine", "give the address of a cluster"
    else:
        from workers.session import nodes

        require_answer(cluster.address)
        where, more = f"at {cluster.address}{on_nodes_with(cluster.labels)}", "add nodes"
        there = nodes(cluster)
        room = min(sum(_fitting(node, cluster) for node in there), _decoders(there, cluster))
    each = devices(cluster.cpus_per_worker, cluster.gpus_per_worker)
    each += f", {counted(cluster.decode_cpus, 'CPU')} to decode" if cluster.decode_cpus else ""
    if room < cluster.workers:
        raise ConfigError(
            f"cluster: {counted(cluster.workers, 'worker')} of {each} each, {where} there is room for {room:.0f}; "
            f"lower {'cluster.workers' if room else 'what a worker reserves'}, or {more}"
        )
    return f"{cluster.workers} {where}, each with {each}"


def _fitting(node: "Node", cluster: Cluster) -> float:
    if not node.allowed:
        return 0
    cpus = _most(node.resources.get("CPU", 0.0), cluster.cpus_per_worker)
    return min(cpus, _most(node.resources.get("GPU", 0.0), cluster.gpus_per_worker))


def _decoders(nodes: "list[Node]", cluster: Cluster) -> float:
    """Return for how many workers there are CPUs to decode, on any nodes, besides those that the workers take."""
    if not cluster.decode_cpus:
        return math.inf
    cpus = sum(node.resources.get("CPU", 0.0) for node in nodes)
    return _most(cpus, cluster.cpus_per_worker + cluster.decode_cpus)


def _most(there: float, each: float) -> float:
    """Return for how many workers a resource is enough."""
    return math.floor(there / each) if each else math.inf
