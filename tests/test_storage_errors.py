import errno
import pickle

import pytest

from capfilt.retries import may_pass
from capfilt.storage.errors import naming

FAR = "s3://KEY:SECRET@bucket/a.tar"


def raised(error: Exception, path: str) -> Exception:
    """Return what comes of an error that is raised inside."""
    with pytest.raises(Exception) as caught, naming(path):  # noqa: PT011, the error is the answer
        raise error
    return caught.value


@pytest.mark.parametrize("error", [OSError(errno.EBUSY, "busy", "/other"), OSError("cannot read /runs/a.tar")])
def test_an_error_that_names_a_path_is_left_as_it_is(error):
    assert raised(error, "/runs/a.tar") is error


@pytest.mark.parametrize(
    ("error", "kind", "code", "words"),
    [
        (OSError(errno.ENOSPC, "no space"), OSError, errno.ENOSPC, "no space"),
        (OSError(errno.ENOSPC, "no space", "/runs/.0f.partial"), OSError, errno.ENOSPC, "no space"),
        (FileNotFoundError("nothing there"), FileNotFoundError, errno.ENOENT, "nothing there"),
        (PermissionError(), PermissionError, errno.EACCES, "PermissionError"),
        (FileExistsError("is there"), FileExistsError, errno.EEXIST, "is there"),
        (TimeoutError(), OSError, errno.EIO, "TimeoutError"),
    ],
)
def test_one_that_names_none_is_given_the_path_and_keeps_its_kind_and_words(error, kind, code, words):
    found = raised(error, "/runs/a.tar")

    assert isinstance(found, kind)
    assert (found.errno, found.filename) == (code, "/runs/a.tar")
    assert found.strerror == words
    assert found.__cause__ is error


class ClientError(Exception):
    """As a store's client raises it: of no class that others know."""


def test_an_error_of_a_stores_client_becomes_one_of_a_file_system():
    found = raised(ClientError("403 Forbidden"), "s3://bucket/a.tar")

    assert isinstance(found, OSError)
    assert (found.errno, found.strerror, found.filename) == (
        errno.EIO,
        "ClientError: 403 Forbidden",
        "s3://bucket/a.tar",
    )


class NoCredentialsError(Exception):
    """As botocore raises it."""


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (ClientError("500"), True),
        (ConnectionResetError(errno.ECONNRESET, "gone"), True),
        (NoCredentialsError("Unable to locate credentials"), False),
        (ImportError("Install s3fs to access S3"), False),
        (ValueError("Protocol not known: foo"), False),
        (PermissionError("The AWS Access Key Id you provided does not exist in our records."), False),
        (FileNotFoundError("The specified bucket does not exist"), False),
    ],
)
def test_whether_it_may_pass_is_known_in_other_processes_too(error, passes):
    """Which get neither the cause of an error nor, without the store's client, its class."""
    found = raised(error, "s3://bucket/a.tar")

    there = pickle.loads(pickle.dumps(found))
    assert (may_pass(found), may_pass(there)) == (passes, passes)
    assert str(there) == str(found)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (ValueError("Protocol not known: foo"), "; give a path, or a URL whose store fsspec knows, such as s3://"),
        (ImportError("Install s3fs"), "; install it with pip, on every node"),
        (NoCredentialsError("none"), "; set them in the environment or the files of the store's client, on every node"),
        (ValueError("Invalid bucket name"), ""),
        (ClientError("Protocol not known: by the store"), ""),
    ],
)
def test_what_can_be_mended_is_told_with_how_and_nothing_else_is(error, remedy):
    told, _, rest = str(raised(error, "s3://bucket/a.tar")).partition(f"{type(error).__name__}: {error}")

    assert told.startswith("[Errno ")
    assert rest.startswith(remedy or ": 's3://")


@pytest.mark.parametrize("error", [ClientError(f"cannot read {FAR}"), OSError(errno.EIO, f"of {FAR[:-1]}")])
def test_credentials_in_a_url_are_not_told(error):
    assert "SECRET" not in str(raised(error, FAR))


@pytest.mark.parametrize("path", ["/runs/a.tar", "file:///runs/a.tar"])
def test_a_slip_of_the_program_is_not_taken_for_a_failure_of_this_machines_disk(path):
    error = KeyError("encoder")

    assert raised(error, path) is error
