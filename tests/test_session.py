import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import pytest
import ray

from capfilt.config import Cluster
from capfilt.errors import PASSING, CheckpointError, ConfigError, NoAnswerError, StoppedError, WorkerError
from capfilt.runs.stop import Stop
from workers import session as session_module
from workers.address import require_answer
from workers.session import _check_machine, _refusals, allows, nodes, on_a_worker, session

HALF = Cluster(cpus_per_worker=0.5)


def no_checkpoint() -> None:
    raise CheckpointError("no checkpoint at med.pt")


def broken_code() -> None:
    raise KeyError("encoder")


def dies() -> None:
    os._exit(1)


def no_disk() -> None:
    raise OSError(errno.ESTALE, "Stale file handle", "med.pt")


def no_file() -> None:
    Path("/no/such/med.pt").read_bytes()


@pytest.mark.usefixtures("ray_cluster")
def test_a_connection_that_is_there_is_used_and_stays():
    with session(Cluster(address="127.0.0.1:1")):
        assert ray.is_initialized()
    assert ray.is_initialized()


@pytest.mark.usefixtures("ray_cluster")
def test_work_is_done_in_another_process_and_what_it_returns_comes_back():
    assert on_a_worker(os.getpid, HALF) != os.getpid()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (no_checkpoint, CheckpointError, r"^no checkpoint at med\.pt$"),
        (broken_code, WorkerError, "^no worker can be tried: KeyError: 'encoder'$"),
        (dies, WorkerError, "^no worker can be tried: "),
    ],
)
def test_an_error_of_the_work_is_told_as_what_it_is(work, error, message):
    with pytest.raises(error, match=message):
        on_a_worker(work, HALF)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("work", "code"), [(no_disk, PASSING), (no_file, 1), (broken_code, 1)])
def test_an_error_of_the_work_that_may_pass_ends_the_job_as_such(work, code):
    with pytest.raises(WorkerError, match=r"^no worker can be tried: ") as told:
        on_a_worker(work, HALF)

    assert told.value.exit_code == code


class EnoughError(Exception):
    """Ends a wait that has been told."""


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"labels": {"pool": "spot"}}, r"0\.5 CPUs and 0 GPUs on nodes with pool: spot"),
        ({"gpus_per_worker": 1.0}, r"0\.5 CPUs and 1 GPU"),
        ({"cpus_per_worker": 64.0}, r"64 CPUs and 0 GPUs"),
    ],
)
def test_a_wait_for_room_is_told(monkeypatch, asked, told):
    def tell(words: str, *values: object) -> None:
        raise EnoughError(words % values)

    monkeypatch.setattr(session_module, "PATIENCE", 0.1)
    monkeypatch.setattr(session_module.logger, "warning", tell)
    with pytest.raises(EnoughError, match=rf"finds no room; .*\b{told}; free: .*; no node has room for one,"):
        on_a_worker(os.getpid, HALF.model_copy(update=asked))


@pytest.mark.usefixtures("ray_cluster")
def test_a_stop_ends_a_wait_for_room():
    stop = Stop()
    stop.ask()
    with pytest.raises(StoppedError, match="a worker was being tried, or found no room, and no unit was begun"):
        on_a_worker(os.getpid, HALF.model_copy(update={"labels": {"pool": "spot"}}), stop)


def write_pid_and_stay(file: Path) -> None:
    file.with_suffix(".part").write_text(str(os.getpid()))
    file.with_suffix(".part").rename(file)
    time.sleep(600)


class StopsOnceThereIs(Stop):
    """Is asked for when a file appears."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    @property
    def asked(self) -> bool:
        return self.file.exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_stop_ends_the_process_that_is_at_the_work(tmp_path):
    with pytest.raises(StoppedError):
        on_a_worker(partial(write_pid_and_stay, tmp_path / "pid"), HALF, StopsOnceThereIs(tmp_path / "pid"))

    pid, deadline = (tmp_path / "pid").read_text(), time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the work goes on"
        time.sleep(0.1)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("labels", "allowed"), [({}, True), ({"pool": "spot"}, False), ({"pool": "!spot"}, True)])
def test_nodes_are_told_with_what_they_have_and_whether_labels_allow_them(labels, allowed):
    (node,) = nodes(HALF.model_copy(update={"labels": labels}))

    assert node.resources["CPU"] == 2
    assert node.allowed is allowed


def test_labels_are_read_as_ray_reads_them():
    there = {"pool": "spot", "zone": "b"}

    assert allows(there, {"pool": "in(spot, idle)", "zone": "!a"})
    assert not allows(there, {"pool": "spot", "zone": "a"})


ENTER = """
import sys
import ray
from capfilt.config import Cluster
from capfilt.errors import CapfiltError
from workers.session import session

if len(sys.argv) > 2:
    ray.__version__ = sys.argv[2]
try:
    with session(Cluster(address=sys.argv[1])):
        print("begun")
except CapfiltError as error:
    print(type(error).__name__, error.exit_code, error)
"""


def enter(*arguments: str, **environment: str) -> str:
    """Return what another process tells that connects to the Ray at an address, if need be as another version."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"} | environment
    command = [sys.executable, "-c", ENTER, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True).stdout


def test_what_takes_connections_and_is_no_cluster_is_told_after_one_look():
    briefly = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_py_gcs_connect_timeout_s": "1"}  # for 40 s, else
    with socket.create_server(("0.0.0.0", 0)) as listener:  # Ray knows this machine by another address than 127.0.0.1
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        told = enter(address, **briefly, RAY_NUM_REDIS_GET_RETRIES="1000")

    assert told.startswith(
        f"NoAnswerError 75 cluster.address: {address} does not answer as the head of a Ray cluster ("
    )
    assert "; give the address that ray start --head prints" in told


def test_another_service_of_a_cluster_is_told_as_what_cannot_be():
    server = grpc.server(ThreadPoolExecutor(1))
    address = f"127.0.0.1:{server.add_insecure_port('0.0.0.0:0')}"  # Ray knows this machine by another address
    server.start()
    told = enter(address)
    server.stop(None)

    assert told.startswith(f"ConfigError 1 cluster.address: {address} does not answer as the head of a Ray cluster (")


@pytest.mark.usefixtures("ray_cluster")
def test_a_cluster_of_another_ray_is_told_in_a_line():
    address = ray.get_runtime_context().gcs_address
    told = enter(address, "2.0.0")

    assert told.startswith(
        f"ConfigError 1 cluster.address: {address}: Version mismatch: The cluster was started with: "
    )
    assert told.endswith("; install here what the cluster has\n")
    assert told.count("\n") == 1


def test_a_refusal_of_several_lines_is_told_with_its_reason():
    server = "Initialization failure from server:\nTraceback (most recent call last):\n  ...\nOSError: no port is free"

    told = r"refuses the connection \(Initialization .*server: OSError: no port is free\)"
    with pytest.raises(NoAnswerError, match=told), _refusals("ray://10.0.0.5:10001"):
        raise ConnectionError(server)


GUARDED = """
import ray

size = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
ray.init("local", **size, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@pytest.mark.parametrize(("mode", "token"), [("token", "b" * 40), ("disabled", "a" * 40)])
def test_a_cluster_that_lets_nobody_in_is_told_with_what_opens_it(guarded, mode, token):
    told = enter(guarded, RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN=token)

    assert told.startswith(f"ConfigError 1 cluster.address: {guarded} refuses the connection (")
    assert told.endswith(
        "for a cluster that asks for a token set RAY_AUTH_MODE=token, with its token in "
        "RAY_AUTH_TOKEN or ~/.ray/auth_token\n"
    )


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """The address of a cluster that asks for a token."""
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 40}
    command = [sys.executable, "-c", GUARDED]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as cluster:
        yield cluster.stdout.readline().strip()
        cluster.communicate("\n", timeout=60)


PRIVATE = """
import ray
from capfilt.config import Cluster
from capfilt.errors import ConfigError
from workers.session import session

start = ray.init


def with_two_gpus(*words, num_gpus, **more):
    start(*words, num_gpus=2 if num_gpus is None else num_gpus, **more)
    print(*(ray.cluster_resources().get(kind, 0) for kind in ("CPU", "GPU")))


ray.init = with_two_gpus
size = {"workers": 3, "cpus_per_worker": 0.4, "decode_cpus": 0.3}
for cluster in (Cluster(**size, labels={"pool": "spot"}), Cluster(workers=2, gpus_per_worker=1)):
    try:
        with session(cluster):
            print("begun")
    except ConfigError as error:
        print(error)
    print(ray.is_initialized())
"""


def test_a_private_cluster_has_what_its_workers_and_decoders_need_and_ends_where_the_machine_is_another():
    """On a machine that has two GPUs, as Ray is told."""
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    told = subprocess.run(
        [sys.executable, "-c", PRIVATE], env=environment, capture_output=True, text=True, timeout=300, check=True
    ).stdout.splitlines()

    assert told[0] == "3.0 0"
    assert told[1].startswith("cluster.labels: this machine is not {'pool': 'spot'}; ")
    assert told[2:] == ["False", "2.0 2.0", "begun", "False"]


@pytest.mark.usefixtures("ray_cluster")
def test_a_machine_with_too_few_gpus_is_refused():
    with pytest.raises(ConfigError, match=r"^cluster: it takes 99 GPUs for 99 workers, this machine has 0$"):
        _check_machine(Cluster(workers=99, cpus_per_worker=0.01, gpus_per_worker=1))


LOSING = """
import sys, threading, time
from functools import partial
from pathlib import Path
import ray
from ray.cluster_utils import Cluster as Nodes
from capfilt.config import Cluster
from capfilt.errors import WorkerError
from workers import session

folder = Path(sys.argv[1])


def work(losses):
    begun = len(list(folder.iterdir()))
    (folder / str(begun)).touch()
    while begun < losses:
        time.sleep(0.1)
    return "done"


def drive():
    ray.init(nodes.address, log_to_driver=False)
    told.append(session.on_a_worker(partial(work, 1), Cluster()))
    try:
        session.on_a_worker(partial(work, 99), Cluster())
    except WorkerError as error:
        told.append(f"{error.exit_code} {error}")
    ray.shutdown()


session.MAX_LOSSES, told = 1, []
size = {"object_store_memory": 80 * 2**20}
nodes = Nodes(initialize_head=True, head_node_args=size | {"num_cpus": 0, "include_dashboard": False})
node = nodes.add_node(**size, num_cpus=1)
job = threading.Thread(target=drive)
job.start()
for begun in (1, 3, 4):  # the second attempt is done
    while len(list(folder.iterdir())) < begun:
        assert job.is_alive(), "the job is over too soon"
        time.sleep(0.1)
    nodes.remove_node(node, allow_graceful=False)
    node = nodes.add_node(**size, num_cpus=1)
job.join()
nodes.shutdown()
print(*told, sep="\\n")
"""


@pytest.mark.slow
def test_work_whose_node_is_lost_is_done_on_another_and_a_job_that_only_loses_nodes_may_be_tried_another_time(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", LOSING, str(tmp_path)]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    assert job.returncode == 0, job.stderr
    done, error = job.stdout.splitlines()[-2:]
    assert done == "done"
    assert error.startswith(f"{PASSING} no worker can be tried: ConnectionError: Task failed because the node it was")


SIGNALLED = """
import os, signal, sys
from capfilt.config import Cluster
from workers.session import session

def signalled(frame, event, argument):
    if event == "call" and frame.f_code.co_name == sys.argv[1] and "ray" in frame.f_code.co_filename:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(signalled)
try:
    with session(Cluster()):
        print("at work")
finally:
    assert signal.alarm(0) == 0, "an end that takes its time is cut short"
"""


# Functions of Ray, in the order in which ray.init and then ray.shutdown call them. From the fourth on, Ray has a core.
MOMENTS = [
    "_init_temp",
    "start_ray_processes",
    "connect",
    pytest.param("_should_ignore_worker_log_prefix", marks=pytest.mark.slow),
    pytest.param("set_is_connected", marks=pytest.mark.slow),
    "shutdown",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_ends_a_job_with_its_own_code_also_while_ray_starts_or_ends(moment):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", SIGNALLED, moment]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    assert job.returncode == 143, job.stderr
    assert job.stdout == ("at work\n" if moment == "shutdown" else "")


BEHEADED = """
import os, signal, time
import ray
from capfilt.config import Cluster
from capfilt.errors import NoAnswerError
from workers import address
from workers.session import session

address.LOOK, address.ORDERLY_END, address.LAST_MOMENT = 0.1, 59.0, 9.0
try:
    with session(Cluster()):
        (head,) = ray._private.worker._global_node.all_processes["gcs_server"]
        os.kill(head.process.pid, signal.SIGKILL)
        time.sleep(60)
except NoAnswerError as error:
    print(error.exit_code, error)
"""


@pytest.mark.slow
def test_a_job_whose_head_is_lost_ends_in_good_order_before_ray_ends_it():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", BEHEADED]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)

    assert job.returncode == 0, job.stderr
    assert job.stdout.startswith(f"{PASSING} cluster.address: local: the head of the cluster (")


SERVED = """
import os, signal, sys
from test_pool import UNITS, Echo
from capfilt.config import Cluster
from capfilt.errors import NoAnswerError
from workers.pool import run_units

cluster = Cluster(address=sys.argv[1], workers=1, cpus_per_worker=0.5)
print(*sorted(run_units(Echo, UNITS, cluster)))
results = run_units(Echo, UNITS, cluster)
next(results)
os.kill(int(sys.argv[2]), signal.SIGKILL)
try:
    list(results)
except NoAnswerError as error:
    print(error.exit_code, error)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_driver_outside_of_the_cluster_does_its_job_and_ends_when_the_connection_is_lost():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    head = ["--address", ray.get_runtime_context().gcs_address, "--host", "127.0.0.1", "--port", str(port)]
    serve = [sys.executable, "-m", "ray.util.client.server", "--mode", "legacy", *head]
    address = f"ray://127.0.0.1:{port}"
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as server:
        wait_for_answer(address)
        command = [sys.executable, "-c", SERVED, address, str(server.pid)]
        environment = os.environ | {"RAY_CLIENT_RECONNECT_GRACE_PERIOD": "1"}
        job = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        server.kill()

    done, lost = job.stdout.splitlines()
    assert done == "0 1 2 3 4 5", job.stderr
    assert lost == (
        f"{PASSING} cluster.address: {address}: the connection to the cluster is lost; when it answers again, run the "
        "same again to go on"
    )


def wait_for_answer(address: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            return require_answer(address)
        except NoAnswerError:
            assert time.monotonic() < deadline, "no server"
            time.sleep(0.2)
