"""Files on local disk and on object stores by one set of functions; a path is a string, local or a URL.

A published file appears under its name whole or not at all, whatever dies meanwhile. Every failure is
an OSError that names the path. Names that begin with a dot are files in the making, and are not listed.
"""

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem


def join(root: str, *parts: str) -> str:
    """Return the path of parts below a root."""
    return root + ("" if root.endswith("/") else "/") + "/".join(parts)


def absolute(path: str) -> str:
    """Return a path that means the same in processes with another current folder."""
    local = local_path(path)
    return path if local is None else str(local.absolute())


def local_path(path: str) -> Path | None:
    """Return where on this machine a path lies, or None for an object store."""
    path = path.removeprefix("file://")
    return None if "://" in path else Path(path)


def exists(path: str) -> bool:
    """Return whether a file or folder is there."""
    with _naming(path):
        store, name = _store(path)
        return bool(store.exists(name))


def size(path: str) -> int:
    """Return the size of a file in bytes."""
    with _naming(path):
        store, name = _store(path)
        return int(store.size(name))


def open_input(path: str) -> BinaryIO:
    """Open a file for reading, at any offset."""
    with _naming(path):
        local = local_path(path)
        if local is not None:
            return local.open("rb")
        store, name = _store(path)
        return cast(BinaryIO, store.open(name, "rb"))


def read_bytes(path: str, start: int = 0, length: int | None = None) -> bytes:
    """Return a file's bytes from start on: length of them, or fewer where the file ends before."""
    with _naming(path):
        store, name = _store(path)
        return bytes(store.cat_file(name, start, None if length is None else start + length))


def list_files(folder: str) -> list[str]:
    """Return the sorted names of the files in a folder; none if there is no such folder."""
    return _list(folder, "file")


def list_folders(folder: str) -> list[str]:
    """Return the sorted names of the folders in a folder; none if there is no such folder."""
    return _list(folder, "directory")


def publish(path: str, data: bytes) -> None:
    """Write a file and make it appear whole: by a rename on local disk, by one PUT on an object store."""
    with _naming(path):
        if local_path(path) is None:
            store, name = _store(path)
            store.pipe_file(name, data)
            return
        with staged(path) as partial:
            partial.write_bytes(data)


@contextmanager
def staged(path: str) -> Iterator[Path]:
    """Yield the path of a local file to write; it is published when the block ends, dropped when it raises.

    For a local path it lies beside its final place, so that nothing is copied.
    """
    local = local_path(path)
    with _naming(path):
        folder = Path(tempfile.gettempdir()) if local is None else local.parent
        folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{uuid.uuid4().hex}.partial"
    try:
        try:
            yield partial
        except OSError as error:
            if _has_name(error, path):
                raise
            raise _named(error, path) from error  # a full disk says nowhere which file it met
        with _naming(path):
            if local is None:
                store, name = _store(path)
                store.put_file(str(partial), name)
            else:
                _sync(partial)
                partial.replace(local)
                _sync(folder)  # the new name itself must outlive a power cut
    finally:
        partial.unlink(missing_ok=True)


def append(path: str, data: bytes) -> None:
    """Add to the end of a file, for notes that nothing depends on: on an object store it is written anew."""
    with _naming(path):
        local = local_path(path)
        if local is None:
            publish(path, (read_bytes(path) if exists(path) else b"") + data)
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.open("ab") as file:
            file.write(data)


def remove(path: str) -> None:
    """Remove a file; one that is not there is no error, since another attempt may have removed it."""
    with _naming(path):
        store, name = _store(path)
        try:
            store.rm_file(name)
        except FileNotFoundError:
            return


def remove_folder(folder: str) -> None:
    """Remove a folder of files, those in the making included; one that is not there is no error."""
    with _naming(folder):
        store, name = _store(folder)
        try:
            store.rm(name, recursive=True)
        except FileNotFoundError:
            return


def _store(path: str) -> tuple[Any, str]:
    """Return the file system of a path and the path's name in it."""
    local = local_path(path)
    if local is not None:
        return LocalFileSystem(), str(local.absolute())
    # other machines write here too, so a listing that was true a minute ago is of no use
    store, name = fsspec.core.url_to_fs(path, use_listings_cache=False)
    return store, name


def _list(folder: str, kind: str) -> list[str]:
    with _naming(folder):
        store, name = _store(folder)
        try:
            entries = store.ls(name, detail=True)
        except FileNotFoundError:
            return []
        names = [entry["name"].rstrip("/").rpartition("/")[2] for entry in entries if entry["type"] == kind]
        return sorted(name for name in names if not name.startswith("."))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Make every failure an OSError that names a path."""
    try:
        yield
    except OSError as error:
        if _has_name(error, path):
            raise
        raise _named(error, path) from error
    except Exception as error:  # each store's client (botocore, aiohttp, ...) has error classes of its own
        if local_path(path) is not None:
            raise
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", path) from error


def _has_name(error: OSError, path: str) -> bool:
    return error.filename is not None or path in str(error)


def _named(error: OSError, path: str) -> OSError:
    code = error.errno or (errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO)
    return OSError(code, error.strerror or str(error) or type(error).__name__, path)
