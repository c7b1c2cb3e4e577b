"""Run a bootstrap job to its end while its actors, its driver and its nodes are killed at random.

    python run.py FOLDER KILLS NODES SEED

Prints a line of JSON: how often each was killed, how often the job was started, its seconds, and the store's faults.
Without NODES, each start of the job has a Ray of its own, and with KILLS 0 nothing is disturbed.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
MAX_STARTS = 100  # of the job: far more than kills and faults can cost
PATIENCE = 30.0  # seconds without a commit until the next is killed all the same
MARK = "CHAOS_RUN"  # in the environment of every process that this one starts


class Nodes:
    """A cluster on this machine; its head does no work, so that any of the others may be lost."""

    def __init__(self, count: int) -> None:
        patient = {"health_check_timeout_ms": 60_000}  # a busy machine must not lose nodes by itself
        head = NODE | {"num_cpus": 0, "include_dashboard": False, "_system_config": patient}
        self.cluster = Cluster(initialize_head=True, head_node_args=head) if count else None
        self.count = count
        self.nodes: list[Any] = [self.cluster.add_node(**NODE) for _ in range(count)] if self.cluster else []

    @property
    def address(self) -> str:
        return self.cluster.address if self.cluster else "local"

    def lose(self, chance: random.Random) -> None:
        """Take away a node and bring in another."""
        assert self.cluster is not None
        self.cluster.remove_node(self.nodes.pop(chance.randrange(len(self.nodes))), allow_graceful=False)
        while len(self.nodes) < self.count:
            try:
                self.nodes.append(self.cluster.add_node(**NODE))
            except Exception as error:  # Ray gives a node 30 s to start, which is little on a busy machine
                sys.stderr.write(f"{error}\n")


class Job:
    """The driver of the job, started again whenever it ends before its time."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.address, self.starts = folder, address, 0
        self.start()

    def start(self) -> None:
        job = Path(__file__).with_name("job.py")
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, str(job), str(self.folder), self.address]
            self.driver = subprocess.Popen(command, stderr=log, stdout=log)
        self.starts += 1

    def done(self) -> bool:
        """Return whether the job has come to its end; if it ended in another way, start it again."""
        code = self.driver.poll()
        if code not in (0, None):
            assert self.starts < MAX_STARTS, "the job does not come to its end"
            self.start()
        return code == 0

    def kill(self) -> None:
        self.driver.send_signal(signal.SIGKILL)
        self.driver.wait()

    @property
    def commits(self) -> int:
        """What the job has come to: units of shards in work, and complete shards."""
        return sum(1 + 5 * (len(path.name) == 10) for path in (self.folder / "run").glob("ledger/*/**/*.json"))


def actors() -> list[int]:
    """Return the pids of all actors of this run that hold a worker."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::_Actor"):
                found += [int(process.name)] if mark in (process / "environ").read_bytes() else []
        except OSError:  # it has ended, or is no process
            continue
    return found


def disturb(kind: str, job: Job, nodes: Nodes, chance: random.Random) -> bool:
    """Kill something, and return whether there was something to kill."""
    pids = actors()
    if kind == "driver":
        job.kill()
    elif kind == "node":
        nodes.lose(chance)
    elif pids:
        os.kill(chance.choice(pids), signal.SIGKILL)
    return kind != "actor" or bool(pids)


def run(job: Job, nodes: Nodes, kills: int, chance: random.Random) -> Counter[str]:
    """Disturb a job now and then, when it has come on since the last time, until it is done; return what was killed."""
    killed: Counter[str] = Counter()
    kinds = itertools.cycle(["driver", "actor", "node", "actor"] if nodes.nodes else ["actor", "driver"])
    before, patience = 0, time.monotonic() + PATIENCE
    while not job.done():
        if killed.total() < kills and (job.commits > before or time.monotonic() > patience):
            time.sleep(chance.random() * 0.3)
            kind = next(kinds)
            killed[kind] += disturb(kind, job, nodes, chance)
            before, patience = job.commits, time.monotonic() + PATIENCE
        time.sleep(0.05)
    return killed


def main(folder: Path, kills: int, count: int, seed: int) -> None:
    os.environ[MARK] = uuid.uuid4().hex
    nodes, start, faults = Nodes(count), time.monotonic(), Path(os.environ["FLAKY_NOTES"])
    try:
        job = Job(folder, nodes.address)
        killed = run(job, nodes, kills, random.Random(seed))
        seconds = round(time.monotonic() - start, 1)
    finally:
        if nodes.cluster:
            nodes.cluster.shutdown()
    lines = faults.read_text().count("\n") if faults.exists() else 0
    sys.stdout.write(json.dumps({"killed": killed, "starts": job.starts, "seconds": seconds, "faults": lines}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
