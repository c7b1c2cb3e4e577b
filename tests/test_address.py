"""A cluster that is not there is told at once."""

import socket

import pytest

from capfilt.errors import NoAnswerError
from workers.address import require_answer


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
