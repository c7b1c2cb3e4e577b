import errno
import re

import pytest

from capfilt import retries
from capfilt.background import map_in_threads
from capfilt.retries import may_pass, patiently


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)


class Store:
    """Fails with these errors, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.asked = list(errors), 0

    def ask(self) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_what_may_pass_is_asked_again_and_told(caplog):
    store = Store(OSError(errno.EBUSY, "busy"), TimeoutError(), ConnectionResetError("gone"))

    assert patiently(store.ask, "s3://bucket/a") == "answer"
    assert store.asked == 4
    assert all(re.search(r"giving up in 1[12]\d s$", line) for line in caplog.messages)
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "s3://bucket/a: OSError: [Errno 16] busy",
        "s3://bucket/a: TimeoutError: ",
        "s3://bucket/a: ConnectionResetError: gone",
    ]


def test_threads_that_wait_for_one_store_warn_once_and_each_store_and_kind_of_error_by_itself(monkeypatch, caplog):
    monkeypatch.setattr(retries.random, "uniform", lambda low, high: 0.2)
    failing = [(f"s3://one/{n}", TimeoutError()) for n in range(8)]
    failing += [("s3://two/0", TimeoutError()), ("s3://one/8", ConnectionResetError())]

    map_in_threads(lambda each: patiently(Store(each[1]).ask, each[0]), failing)

    told = sorted((line[:8], line.split(": ")[1]) for line in caplog.messages)
    assert told == [("s3://one", "ConnectionResetError"), ("s3://one", "TimeoutError"), ("s3://two", "TimeoutError")]


class NoCredentialsError(Exception):
    """As botocore's, which has no class in common with others."""


class FileExpired(OSError):
    """As s3fs raises it, whose other errors of this number say that the store is busy."""


@pytest.mark.parametrize(
    "error",
    [
        *(FileNotFoundError(), PermissionError(), ValueError(), NoCredentialsError()),
        *(OSError(code, "no") for code in (errno.EROFS, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.ENOTSUP)),
        FileExpired(errno.EBUSY, "expired"),
    ],
)
def test_what_lasts_is_raised_at_once(error):
    store = Store(error)

    with pytest.raises(type(error)):
        patiently(store.ask, "s3://bucket/a")
    assert store.asked == 1


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(retries, "PATIENCE", 0.05)
    store = Store(*[OSError(errno.EIO, "busy")] * 10_000)

    with pytest.raises(OSError, match="busy"):
        patiently(store.ask, "s3://bucket/a")
    assert store.asked > 2


def test_an_error_class_that_nobody_knows_may_pass():
    assert may_pass(Exception("of some client"))
