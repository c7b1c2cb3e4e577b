import re

import pytest

from capfilt.config import Cluster
from capfilt.errors import ConfigError, NoAnswerError
from workers.room import find_room
from workers.session import Node


def test_cpu_workers_find_room_on_this_machine_without_ray():
    assert find_room(Cluster(workers=3)) == "3 on this machine, each with 1 CPU and 0 GPUs"


def test_gpus_that_this_machine_lacks_are_a_problem(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert find_room(Cluster(workers=6, gpus_per_worker=0.5)).startswith("6 on this machine")
    with pytest.raises(ConfigError, match=r"4 workers of 1 CPU and 1 GPU each, on this machine there is room for 3;"):
        find_room(Cluster(workers=4, gpus_per_worker=1))
    with pytest.raises(ConfigError, match=r"room for 0; lower what a worker reserves, or give the address of a cl"):
        find_room(Cluster(workers=1, gpus_per_worker=4))


def test_an_address_that_does_not_answer_is_a_problem():
    with pytest.raises(NoAnswerError, match=r"cluster\.address: 127\.0\.0\.1:1 does not answer"):
        find_room(Cluster(address="127.0.0.1:1"))


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_is_asked_for_what_its_nodes_have():
    """It has two CPUs and no GPU; an address is looked up before the connection that is there already is used."""
    assert find_room(Cluster(address="auto", workers=4, cpus_per_worker=0.5)) == (
        "4 at auto, each with 0.5 CPUs and 0 GPUs"
    )
    with pytest.raises(ConfigError, match=r"2 workers of 1 CPU and 1 GPU each, at auto there is room for 0;"):
        find_room(Cluster(address="auto", workers=2, gpus_per_worker=1))


@pytest.mark.usefixtures("ray_cluster")
def test_cpus_that_a_cluster_lacks_are_a_problem():
    with pytest.raises(ConfigError, match=r"5 workers of 0\.5 CPUs and 0 GPUs each, at auto there is room for 4;"):
        find_room(Cluster(address="auto", workers=5, cpus_per_worker=0.5))


def room_for(monkeypatch, nodes: list[Node], **asked: float) -> int:
    """Return how many workers find room on some nodes."""
    monkeypatch.setattr("workers.session.nodes", lambda cluster: nodes)
    monkeypatch.setattr("workers.room.require_answer", lambda address: None)
    with pytest.raises(ConfigError) as told:
        find_room(Cluster(address="head:6379", workers=99, **asked))
    return int(re.search(r"there is room for (\d+);", str(told.value))[1])


def test_a_worker_has_all_its_share_on_one_node(monkeypatch):
    nodes = [Node({"CPU": 7.0, "GPU": 1.0}, True), Node({"CPU": 7.0, "GPU": 3.0}, True), Node({"CPU": 64.0}, True)]
    assert room_for(monkeypatch, nodes, cpus_per_worker=4, gpus_per_worker=1) == 2
    assert room_for(monkeypatch, nodes, cpus_per_worker=4, gpus_per_worker=2) == 1
    assert room_for(monkeypatch, nodes, cpus_per_worker=0, gpus_per_worker=1) == 4


def test_decoding_finds_its_cpus_on_any_node_beside_those_of_the_workers(monkeypatch):
    nodes = [Node({"CPU": 8.0, "GPU": 8.0}, True), Node({"CPU": 12.0}, False)]
    assert room_for(monkeypatch, nodes, cpus_per_worker=1, gpus_per_worker=1, decode_cpus=1) == 8
    assert room_for(monkeypatch, nodes, cpus_per_worker=1, gpus_per_worker=1, decode_cpus=3) == 5


@pytest.mark.usefixtures("ray_cluster")
def test_processes_that_decode_need_room_too():
    apart = {"address": "auto", "cpus_per_worker": 0.5, "decode_cpus": 1.0}
    assert find_room(Cluster(workers=1, **apart)) == "1 at auto, each with 0.5 CPUs and 0 GPUs, 1 CPU to decode"
    with pytest.raises(ConfigError, match=r"2 workers of .* 1 CPU to decode each, at auto there is room for 1;"):
        find_room(Cluster(workers=2, **apart))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("wanted", "there"), [("!spot", True), ("!in(spot,idle)", True), ("spot", False)])
def test_nodes_that_labels_rule_out_are_no_room(wanted, there):
    """Ray would have the job's workers wait for ever; its nodes have no label of that name here."""
    cluster = Cluster(address="auto", labels={"pool": wanted})
    if there:
        assert find_room(cluster) == f"1 at auto on nodes with pool: {wanted}, each with 1 CPU and 0 GPUs"
    else:
        with pytest.raises(ConfigError, match="at auto on nodes with pool: spot there is room for 0;"):
            find_room(cluster)
