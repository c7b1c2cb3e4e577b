"""A head of a Ray cluster with its dashboard, on loopback and in a process of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def start_head(folder: Path) -> Iterator[str]:
    """Yield the URL of the dashboard of a head with two CPUs; its processes know no module of this checkout.

    Its own folder keeps it apart from other Rays of this machine, of which a job would take the newest for its own.
    """
    own = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets lie in it, whose paths have to be short
    url = f"http://127.0.0.1:{_free_port()}"
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0", "--num-cpus=2"]
    command += [f"--dashboard-port={url.rpartition(':')[2]}", "--dashboard-agent-listen-port=0", "--min-worker-port=0"]
    command += ["--max-worker-port=0", f"--ray-client-server-port={_free_port()}", "--disable-usage-stats"]
    command += [f"--object-store-memory={80 * 2**20}", f"--temp-dir={own}"]
    away = ("PYTHONPATH", "AWS_SECRET_ACCESS_KEY", "RAY_API_SERVER_ADDRESS")
    environment = {key: value for key, value in os.environ.items() if key not in away}
    environment |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_for(url, head, folder / "head.log")
        yield url
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(own, ignore_errors=True)


def _wait_for(url: str, head: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert head.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"no dashboard\n{log.read_text()}"
        try:
            urllib.request.urlopen(f"{url}/api/version", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
