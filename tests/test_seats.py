import os
import re
import threading

import pytest
import ray

from capfilt.config import Cluster
from capfilt.logs import LogSettings, everywhere
from capfilt.records import Shard, Unit
from workers.seats import hire, units_in_hand

UNIT = Unit(Shard("0", "0.tar", 1, "d", 8), 0, 8)


class Looks:
    """A worker that tells what its process was given."""

    def run(self, unit: Unit) -> tuple[str, int, dict[str, str]]:
        return os.environ["RAYON_NUM_THREADS"], os.getpid(), LogSettings.here().fields


class Meets:
    """A worker that goes on with a unit when as many are in hand as may be."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def run(self, unit: Unit) -> int:
        return self.barrier.wait(timeout=60)


def test_a_gpu_has_one_unit_more_in_hand():
    assert (units_in_hand(Cluster()), units_in_hand(Cluster(gpus_per_worker=0.5))) == (2, 3)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("cpus", "threads"), [(2.0, "2"), (0.5, "1")])
def test_an_actor_is_told_by_its_place_and_has_the_threads_and_the_log_of_its_job(cpus, threads):
    with everywhere(run="/runs/a"):
        seat = hire(Looks, Cluster(cpus_per_worker=cpus))
    seat.node, seat.place = ray.get(seat.building)

    found, pid, fields = ray.get(seat.actor.run.remote(UNIT))
    ray.kill(seat.actor)

    assert seat.node == ray.nodes()[0]["NodeID"]
    assert re.fullmatch(rf"pid {pid} on [\d.]+", str(seat))
    assert (found, fields) == (threads, {"run": "/runs/a"})


@pytest.mark.usefixtures("ray_cluster")
def test_as_many_units_run_at_once_as_are_in_hand():
    seat = hire(Meets, Cluster(cpus_per_worker=0.5))
    ray.get(seat.building)
    met = ray.get([seat.actor.run.remote(UNIT) for _ in range(units_in_hand(Cluster()))])
    ray.kill(seat.actor)

    assert sorted(met) == [0, 1]
