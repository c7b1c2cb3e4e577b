"""Turn every failure of a file system into an OSError that names the path."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from capfilt.display import redact
from capfilt.retries import may_pass

_CODES = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, FileExistsError: errno.EEXIST}


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Turn every failure in the block into an OSError that names a path."""
    try:
        yield
    except OSError as error:
        if names(error, path):
            raise
        raise named(error, path) from error
    except Exception as error:  # each store's client (botocore, aiohttp, ...) has error classes of its own
        if "://" not in path.removeprefix("file://"):  # a bug, not a failure of a store
            raise
        told = f"{type(error).__name__}: {error}{_remedy(error)}"
        # the number tells may_pass in other processes whether it may pass: causes and their classes are not pickled
        raise OSError(errno.EIO if may_pass(error) else errno.ENOTSUP, redact(told), redact(path)) from error


def _remedy(error: Exception) -> str:
    """Return what to do about an error that a retry cannot mend, as the end of a sentence."""
    if isinstance(error, ValueError) and "Protocol not known" in str(error):
        return "; give a path, or a URL whose store fsspec knows, such as s3://BUCKET/FOLDER"
    if isinstance(error, ImportError):
        return "; install it with pip, on every node"
    if "Credentials" in type(error).__name__:
        return "; set them in the environment or the files of the store's client, on every node"
    return ""


def of_disk(error: Exception) -> OSError | None:
    """Return the failure of a disk that an error is or stands for, since libraries raise errors of their own.

    torch reports a file that ends too early, with the OSError as context; safetensors puts the number into its message.
    """
    cause = error.__context__ if isinstance(error, RuntimeError) else error
    if isinstance(cause, OSError):
        return cause
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def lacks_bucket(error: OSError) -> bool:
    """Return whether a FileNotFoundError is S3's answer that the bucket itself does not exist."""
    cause = getattr(error.__cause__, "__cause__", None)  # what s3fs raised, and then what botocore did
    response = getattr(cause, "response", None)
    return isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket"


def names(error: OSError, path: str) -> bool:
    """Return whether an error names its path already; the name of an unfinished file does not count."""
    return path in str(error) or (error.filename is not None and not str(error.filename).endswith(".partial"))


def named(error: OSError, path: str) -> OSError:
    """Return an error of the same kind that names a path, and shows no credentials."""
    code = error.errno or next((code for kind, code in _CODES.items() if isinstance(error, kind)), errno.EIO)
    if code == errno.EINVAL and may_pass(error):  # by its cause, which the new error does not have
        code = errno.EIO
    words = error.strerror or str(error) or type(error).__name__
    if code == errno.EACCES and "://" in path.removeprefix("file://"):
        words += "; check the keys of the store and what they allow, on every node"
    return OSError(code, redact(words), redact(path))
