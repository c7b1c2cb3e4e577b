"""A connection to the dashboard of a cluster; how its outages are borne is in test_jobs.py."""

import os
import socketserver
import threading

import pytest
from click.testing import CliRunner
from dashboards import JOB, dashboard

from capfilt.cli import cli
from capfilt.errors import JobError
from workers.dashboard import connect, told


@pytest.mark.parametrize("elsewhere", [{}, {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}])
def test_a_connection_goes_to_the_address_given_and_leaves_the_environment_as_it_was(elsewhere, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    for name, value in (elsewhere | {"RAY_ADDRESS": "127.0.0.1:1"}).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with dashboard() as port:
        assert connect(f"http://127.0.0.1:{port}").get_job_status(JOB) == "RUNNING"
    assert dict(os.environ) == before


def test_a_dashboard_that_asks_for_a_token_is_told_with_what_gives_it():
    with dashboard(locked=True) as port:
        result = CliRunner().invoke(cli, ["status", "run", "--address", f"http://127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1
    assert "Missing authentication token; for a cluster that asks for a token set RAY_AUTH_MODE=token" in result.output


@pytest.mark.parametrize("answer", [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", b"\x00\x00\x18\x04"])
def test_what_answers_and_is_no_dashboard_is_asked_for_by_its_address(answer):
    """Such as another web server, or the port that nodes and drivers have, which speaks another protocol."""

    class Other(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        result = CliRunner().invoke(cli, ["status", "run", "--address", url])
        server.shutdown()
    assert result.exit_code == (1 if b"404" in answer else 75)
    assert len(result.output.splitlines()) == 1
    assert f"; is {url} a dashboard? nodes and drivers have another port, 6379" in result.output


def test_a_job_id_that_somebody_else_has_just_taken_is_no_failure_of_the_dashboard():
    why = "ValueError: Job with submission_id a already exists"
    with pytest.raises(JobError, match=rf"status code 500: Traceback: \.\.\. {why}$"), told():
        raise RuntimeError(f"Request failed with status code 500: Traceback:\n  File x\n{why}\n.\n.")
