"""Files on local disk and on object stores through one set of functions; a path is a string: a local path or a URL.

A published file appears under its name whole or not at all, whatever dies meanwhile. Requests to an object store
that fail for a cause that may pass are retried. Every failure is an OSError that names the path, and shows no
credentials. Names that begin with a dot are of unfinished files, and are not listed.
"""

import errno
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from capfilt.retries import patiently
from capfilt.storage.errors import lacks_bucket, named, names, naming, of_disk
from capfilt.storage.placing import mode_of_new, place
from capfilt.storage.ranges import RangedFile
from capfilt.storage.scratch import Scratch

T = TypeVar("T")


def join(root: str, *parts: str) -> str:
    """Return the path of parts below a root."""
    return root + ("" if root.endswith("/") else "/") + "/".join(parts)


def absolute(path: str) -> str:
    """Return a path that means the same whatever the current folder is."""
    local = local_path(path)
    return path if local is None else str(local.absolute())


def local_path(path: str) -> Path | None:
    """Return a path on this machine as a Path, or None for one on an object store."""
    path = path.removeprefix("file://")
    return None if "://" in path else Path(path)


def exists(path: str) -> bool:
    """Return whether a file or folder is there."""
    try:
        _ask(path, lambda store, name: store.info(name))
    except FileNotFoundError:
        return False
    return True  # fsspec's own exists would say no, too, where the store does not answer


def size(path: str) -> int:
    """Return the size of a file in bytes."""
    return _ask(path, lambda store, name: int(store.size(name)))


def version(path: str) -> str:
    """Return a text that changes whenever a file is written: a store's ETag, or a local file's inode, size and times.

    It is empty where a store has no ETags. Files of one version hold the same bytes; a copy may have another version.
    """
    local = local_path(path)
    if local is not None:
        with naming(path):
            found = local.stat()  # ctime cannot be set back, as mtime can
        return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    facts = _ask(path, lambda store, name: store.info(name))
    etag = facts.get("ETag") or facts.get("etag")
    return f"{facts['size']} {etag}" if etag else ""


def open_input(path: str) -> BinaryIO:
    """Open a file for reading, at any offset."""
    local = local_path(path)
    if local is not None:
        with naming(path):
            return local.open("rb")
    file = _ask(path, lambda store, name: store.open(name, "rb", cache_type="none"))
    return cast(BinaryIO, RangedFile(partial(_fetch, path, file), int(file.size)))


def read_bytes(path: str, start: int = 0, length: int | None = None) -> bytes:
    """Return `length` bytes of a file from start on; fewer if the file ends before."""
    end = None if length is None else start + length

    def read(store: AbstractFileSystem, name: str) -> bytes:
        try:
            return bytes(store.cat_file(name, start=start, end=end))
        except OSError as error:
            if error.errno == errno.EINVAL and store.size(name) <= start:  # S3 refuses a range after the end
                return b""
            raise

    return _ask(path, read)


def list_entries(folder: str) -> tuple[list[str], list[str]]:
    """Return the sorted names of the files and the folders in a folder, by one listing; none if it does not exist."""
    try:
        kinds = sorted(pair for pair in _kinds(folder) if not pair[0].startswith("."))
    except (FileNotFoundError, NotADirectoryError) as error:
        if lacks_bucket(error):  # a wrong name, not a folder to come
            raise
        kinds = []
    return [name for name, is_folder in kinds if not is_folder], [name for name, is_folder in kinds if is_folder]


def list_files(folder: str) -> list[str]:
    """Return the sorted names of the files in a folder; none if there is no such folder."""
    return list_entries(folder)[0]


def list_folders(folder: str) -> list[str]:
    """Return the sorted names of the folders in a folder; none if there is no such folder."""
    return list_entries(folder)[1]


def find_files(pattern: str) -> list[str]:
    """Return the URLs on an object store that a glob matches; ** reaches into folders."""
    return _ask(pattern, lambda store, name: [str(store.unstrip_protocol(found)) for found in store.glob(name)])


def publish(path: str, data: bytes) -> None:
    """Write a file and make it appear whole: by a rename on local disk, by one PUT on an object store."""
    if local_path(path) is None:
        _ask(path, lambda store, name: store.pipe_file(name, data))
        return
    with naming(path), staged(path) as partial:
        partial.write_bytes(data)


@contextmanager
def staged(path: str) -> Iterator[Path]:
    """Yield the path of a local file to write; it is published when the block ends, and dropped if the block raises.

    For a local path it is in the same folder, so that nothing is copied. It gets the mode that the umask gives to new
    files, even if the block replaces it: safetensors writes files that only their owner can read.
    """
    local = local_path(path)
    with naming(path):
        home: AbstractContextManager[str] = Scratch() if local is None else nullcontext(str(local.parent))
    with home as folder:
        with naming(path):
            Path(folder).mkdir(parents=True, exist_ok=True)
            partial = Path(folder, f".{uuid.uuid4().hex}.partial")
            mode = mode_of_new(partial)
        try:
            try:
                yield partial
            except Exception as error:  # torch and safetensors have their own errors for a full disk
                failure = of_disk(error)
                if failure is None or (failure is error and names(failure, path)):
                    raise
                full = path if local is not None else f"{folder}, for {path}"
                raise named(failure, full) from error  # the error of a full disk names no file
            if local is None:
                _ask(path, lambda store, name: store.put_file(str(partial), name))
            else:
                with naming(path):
                    place(partial, local, mode)
        finally:
            with suppress(OSError):  # must not hide the error of the block; sweep removes what is left
                partial.unlink(missing_ok=True)


def append(path: str, data: bytes) -> None:
    """Add to the end of a file, for notes that nothing depends on: on an object store the whole file is rewritten."""
    with naming(path):
        local = local_path(path)
        if local is None:
            publish(path, (read_bytes(path) if exists(path) else b"") + data)
            return
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.open("ab") as file:
            file.write(data)


def remove(path: str) -> None:
    """Remove a file; a missing one is no error, since another attempt may have removed it."""
    with suppress(FileNotFoundError):
        _ask(path, lambda store, name: store.rm_file(name))


def remove_folder(folder: str) -> None:
    """Remove a folder with all of its files, unfinished ones too; a missing folder is no error."""
    with suppress(FileNotFoundError):
        _ask(folder, lambda store, name: store.rm(name, recursive=True))


def _ask(path: str, call: Callable[[AbstractFileSystem, str], T]) -> T:
    """Call a function with the file system of a path and the path's name in it, and return its result."""
    with naming(path):
        store, name = _store(path)
        if local_path(path) is not None:
            return call(store, name)
        return patiently(lambda: call(store, name), path)


def _fetch(path: str, file: AbstractBufferedFile, start: int, end: int) -> bytes:
    """Return the bytes of a range of an open file on an object store: all of them, from one request."""

    def fetch() -> bytes:
        file.seek(start)
        data = bytes(file.read(end - start))
        if len(data) != end - start:
            raise OSError(errno.EIO, f"only {len(data)} of {end - start} bytes came, from byte {start} on")
        return data

    with naming(path):
        return patiently(fetch, path)


def sweep(folder: str, *, deep: bool = True) -> None:
    """Remove the unfinished files that dead processes left in a folder, and below it if deep.

    A process that is writing there loses its file. On an object store unfinished files are not visible.
    """
    local = local_path(folder)
    with naming(folder):
        for inner, folders, names in os.walk(local) if local else ():  # several times as fast as a glob
            for name in names:
                if re.fullmatch(r"\.[0-9a-f]{32}\.partial", name):  # nothing that others put there
                    Path(inner, name).unlink(missing_ok=True)
            folders[:] = folders if deep else []


def _store(path: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of a path and the path's name in it."""
    local = local_path(path)
    if local is not None:
        return LocalFileSystem(), str(local.absolute())
    # other machines write here too, so cached listings are of no use
    return cast(tuple[AbstractFileSystem, str], fsspec.core.url_to_fs(path, use_listings_cache=False))


def _kinds(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the name of each thing in a folder, and whether it is a folder too."""
    local = local_path(folder)
    if local is not None:  # scandir needs no stat of each file, which takes most of the time in a large folder
        with naming(folder), os.scandir(local) as found:
            yield from ((entry.name, entry.is_dir()) for entry in found)
        return
    for entry in _ask(folder, lambda store, name: store.ls(name, detail=True)):
        yield entry["name"].rstrip("/").rpartition("/")[2], entry["type"] == "directory"
