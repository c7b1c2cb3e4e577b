"""A cluster that is not there is told at once, and one whose head is lost while a job is at work soon after."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from capfilt.errors import NoAnswerError
from capfilt.signals import exit_on_sigterm
from workers import address as address_module
from workers.address import ended_without_head, require_answer


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_that_nothing_listens_at_is_refused_with_the_remedy(form):
    address = form.format(closed_port())
    with pytest.raises(
        NoAnswerError, match=rf"cluster\.address: {address} does not answer .*set cluster\.address: local"
    ) as told:
        require_answer(address)
    assert told.value.exit_code == 75


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "[::1]:99999", "no host:6379"])
def test_so_is_one_that_cannot_be(address):
    with pytest.raises(NoAnswerError, match="does not answer"):
        require_answer(address)


def test_one_that_takes_a_connection_is_left_to_ray():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        require_answer(f"127.0.0.1:{listener.getsockname()[1]}")


@pytest.mark.parametrize("address", ["auto", "local"])
def test_a_form_without_a_place_is_left_to_ray(address):
    require_answer(address)


def work_while_its_head_is_lost(seconds: float) -> None:
    """Work for some seconds, after the head, which a listener stands for, has gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        head = f"127.0.0.1:{listener.getsockname()[1]}"
        with exit_on_sigterm(), ended_without_head("auto", head):
            time.sleep(0.1)  # it is there
            listener.close()
            time.sleep(seconds)


def test_a_job_whose_head_is_lost_ends_with_the_remedy_before_ray_ends_it(monkeypatch):
    monkeypatch.setattr(address_module, "LOOK", 0.01)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", str(address_module.ORDERLY_END + 0.5))

    with pytest.raises(
        NoAnswerError, match=r"^cluster\.address: auto: the head of the cluster .* for 0\.5 s; .* to go on$"
    ):
        work_while_its_head_is_lost(seconds=60)


def test_a_head_that_is_away_for_less_is_borne(monkeypatch):
    monkeypatch.setattr(address_module, "LOOK", 0.01)

    work_while_its_head_is_lost(seconds=0.2)


def test_a_job_that_is_ended_otherwise_is_not_blamed_on_its_head():
    with pytest.raises(SystemExit), ended_without_head("auto", "127.0.0.1:1"):
        raise SystemExit(143)


BLOCKED = """
import time
from workers import address
address.LOOK, address.ORDERLY_END, address.LAST_MOMENT = 0.01, 60.0, 59.9
with address.ended_without_head("auto", "127.0.0.1:1"):  # without exit_on_sigterm no signal reaches it
    time.sleep(60)
"""


def test_one_that_cannot_be_told_is_ended_with_the_same_words():
    job = subprocess.run(
        [sys.executable, "-c", BLOCKED], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )

    assert (job.returncode, job.stdout) == (75, "")
    assert job.stderr.startswith("Error: cluster.address: auto: the head of the cluster (127.0.0.1:1) has not answered")
    assert job.stderr.count("\n") == 1
