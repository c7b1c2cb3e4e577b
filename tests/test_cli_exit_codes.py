"""What never passes by itself ends a command with exit code 1 and a remedy, not with that of what may do later."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from ledgers import exported_run

from capfilt.cli import cli

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("foo://b/0.tar", "Protocol not known: foo; give a path, or a URL whose store fsspec knows"),
        ("gs://b/0.tar", "Please install gcsfs to access Google Storage; install it with pip, on every node"),
        (
            "s3://b/0.tar",
            "Unable to locate credentials; set them in the environment or the files of the store's client",
        ),
    ],
)
def test_a_store_that_can_never_be_asked_is_an_error_to_mend(url, told, tmp_path):
    if url.startswith("gs") and importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-m", "capfilt.cli", "scan", url]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 1, result.stderr
    assert told in result.stderr
    assert f"{url}'" in result.stderr


def test_a_store_that_does_not_answer_is_none(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("503 Slow Down")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", fail)
    monkeypatch.setattr("capfilt.retries.PATIENCE", 0.0)
    assert CliRunner().invoke(cli, ["scan", "memory://b/0.tar"]).exit_code == 75


def read_only(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of capfilt to which a folder is mounted read-only."""
    command = ["unshare", "-rm", "sh", "-c", READ_ONLY, str(folder), sys.executable, "-m", "capfilt.cli", *words]
    if subprocess.run([*command[:6], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a folder be mounted read-only")
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(params=[None, 503, 429, 404], ids=["nobody", "at fault", "later", "not there"])
def web(request) -> Iterator[tuple[str, int]]:
    """The URL of a run on a web server, and the exit code of whoever asks about it."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(request.param)

        do_HEAD = do_GET

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        url = f"http://127.0.0.1:{server.server_port}/run"
        if request.param is None:
            server.server_close()
            yield url, 75
            return
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield url, 1 if request.param == 404 else 75
        server.shutdown()


@pytest.mark.parametrize("command", ["stats", "verify", "logs", "status"])
def test_a_run_on_a_web_server_that_does_not_answer_is_not_told_as_gone(monkeypatch, web, command):
    monkeypatch.setattr("capfilt.retries.PATIENCE", 0.0)
    url, code = web
    result = CliRunner().invoke(cli, [command, url])
    assert result.exit_code == code, result.output
    assert (code == 75) == ("not found" not in result.output)


def test_a_read_only_disk_is_told_with_the_file_and_what_to_do(tmp_path):
    run, _ = exported_run(tmp_path)

    result = read_only(Path(run.root), "report", run.root, "--output", f"{run.root}/a.html")

    error = f"Error: [Errno 30] Read-only file system: '{run.root}/a.html'; make it writable, or write elsewhere\n"
    assert (result.returncode, result.stderr) == (1, error)


def test_the_report_of_a_run_that_is_read_only_can_be_written_elsewhere(tmp_path):
    run, _ = exported_run(tmp_path)

    result = read_only(Path(run.root), "report", run.root)

    assert result.returncode == 1
    assert f"'{run.root}/report.html'; give --output FILE to write the report elsewhere\n" in result.stderr
    assert read_only(Path(run.root), "report", run.root, "--output", f"{tmp_path}/a.html").returncode == 0
