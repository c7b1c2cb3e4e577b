"""Unlike nodes that change while a job is at work: models on GPU nodes, decoders on the others, and the same bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drivers import TESTS, tables
from fakes import NAMES, build_fakes, job_config, mixed_shards

from pipelines import bootstrap

JOB = """
import json, sys, threading, time
from functools import partial
from pathlib import Path
import ray
from ray.cluster_utils import Cluster as Nodes
from fakes import NAMES, build_fakes, job_config
from pipelines import bootstrap

folder = Path(sys.argv[1])


def build(config, notes):
    with (notes / ray.get_runtime_context().get_node_id()).open("a") as file:
        file.write("x")
    return build_fakes(config, delay=0.6)  # a late worker starts its decoders first


def commits():
    return len(list((folder / "run").glob("ledger/*/**/*.json")))


def wait_for(condition):
    while not condition():
        assert job.is_alive(), "the job is over too soon"
        time.sleep(0.02)


def drive():
    settings = {"workers": 3, "gpus_per_worker": 1, "cpus_per_worker": 0.5, "decode_cpus": 0.2}
    settings["labels"] = {"pool": "!spare"}
    ray.init(nodes.address, log_to_driver=False)
    config = job_config(folder, export=True, device={"kind": "cuda"}, cluster=settings)
    bootstrap.run(config, partial(build, notes=folder / "notes"), NAMES)
    ray.shutdown()


size = {"object_store_memory": 80 * 2**20}
nodes = Nodes(initialize_head=True, head_node_args=size | {"num_cpus": 0, "include_dashboard": False})
kinds = {
    "first": {"num_cpus": 1, "num_gpus": 1},
    "plain": {"num_cpus": 1, "num_gpus": 0},
    "spare": {"num_cpus": 1, "num_gpus": 4, "labels": {"pool": "spare"}},
    "late": {"num_cpus": 1, "num_gpus": 2},
}
(folder / "notes").mkdir()
ids = {kind: nodes.add_node(**size, **kinds[kind]) for kind in ("first", "plain", "spare")}
job = threading.Thread(target=drive)
job.start()
wait_for(lambda: commits() > 1)
ids["late"] = nodes.add_node(**size, **kinds["late"])  # from the main thread, as Ray wants it
wait_for((folder / "notes" / ids["late"].node_id).exists)
nodes.remove_node(ids["first"], allow_graceful=False)
before = commits()
actors = ray._private.state.actors().values()
decoding = {actor["Address"]["NodeID"] for actor in actors if actor["ActorClassName"] == "_Decoder"}
job.join()
nodes.shutdown()
hired = {kind: (folder / "notes" / node.node_id).exists() for kind, node in ids.items()}
decoding = [kind for kind, node in ids.items() if node.node_id in decoding]
print(json.dumps({"hired": hired, "before": before, "decoding": decoding}))
"""


@pytest.mark.slow
def test_nodes_that_are_unlike_lost_and_late_change_no_byte(tmp_path):
    """Nodes need a process of their own. One GPU node dies, another joins late, and workers want both and more."""
    for name in ("calm", "wild"):
        mixed_shards(tmp_path / name / "in", shards=4, samples=48)
    calm = job_config(tmp_path / "calm", export=True, device={"kind": "cuda"})
    bootstrap.run(calm, build_fakes, NAMES, local=True)

    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = os.environ | {"PYTHONPATH": paths, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", JOB, str(tmp_path / "wild")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["hired"] == {"first": True, "plain": False, "spare": False, "late": True}
    assert found["decoding"] == ["plain"]  # the one without GPUs
    assert 0 < found["before"] < 24
    assert "its node was lost: " in (tmp_path / "wild/run/journal.jsonl").read_text()
    assert tables(tmp_path / "wild") == tables(tmp_path / "calm")
    assert clean(tmp_path / "wild") == clean(tmp_path / "calm")


def clean(folder: Path) -> dict[str, bytes]:
    (root,) = (folder / "run/clean").iterdir()
    return {path.name: path.read_bytes() for path in root.iterdir()}
