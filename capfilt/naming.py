"""Every failure of a file system as an OSError that names the path."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from capfilt.display import redact

_CODES = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, FileExistsError: errno.EEXIST}


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Make every failure an OSError that names a path."""
    try:
        yield
    except OSError as error:
        if names(error, path):
            raise
        raise named(error, path) from error
    except Exception as error:  # each store's client (botocore, aiohttp, ...) has error classes of its own
        if "://" not in path.removeprefix("file://"):  # a slip of the program, not of a store
            raise
        raise OSError(errno.EIO, redact(f"{type(error).__name__}: {error}"), redact(path)) from error


def names(error: OSError, path: str) -> bool:
    """Return whether an error tells about which path it is."""
    return error.filename is not None or path in str(error)


def named(error: OSError, path: str) -> OSError:
    """Return an error of the same kind that names a path, and shows no credentials."""
    code = error.errno or next((code for kind, code in _CODES.items() if isinstance(error, kind)), errno.EIO)
    return OSError(code, redact(error.strerror or str(error) or type(error).__name__), redact(path))
