"""An object store on local disk that fails now and then, before or after it has done what it was asked for."""

import errno
import os
import random
import uuid
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

RATE = float(os.environ.get("FLAKY_RATE", "0"))  # share of the calls that fail
NOTES = os.environ.get("FLAKY_NOTES", os.devnull)  # a line for each fault


class FlakyStore(LocalFileSystem):
    """flaky:///folder is the folder /folder."""

    protocol = "flaky"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("flaky://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write a file as a store does, whole or not at all."""
        with _faults(f"write {path}"):
            making = Path(os.environ["FLAKY_STAGING"], uuid.uuid4().hex)
            making.parent.mkdir(exist_ok=True)
            making.write_bytes(value)
            final = Path(self._strip_protocol(path))
            final.parent.mkdir(parents=True, exist_ok=True)
            making.replace(final)

    def put_file(self, lpath: str, rpath: str, *args: Any, **kwargs: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> Any:
        with _faults(f"read {path}"):
            return super().cat_file(path, start, end, **kwargs)

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        with _faults(f"list {path}"):
            return super().ls(path, detail, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        with _faults(f"look at {path}"):
            return super().info(path, **kwargs)

    def rm_file(self, path: str) -> None:
        with _faults(f"remove {path}"):
            super().rm_file(path)


class _faults:
    """Fails before the block or after it, at random."""

    def __init__(self, what: str) -> None:
        self.what, self.draw = what, random.random()

    def __enter__(self) -> None:
        if self.draw < RATE / 2:
            self.fail("")

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None and RATE / 2 <= self.draw < RATE:
            self.fail(", though it was done")

    def fail(self, more: str) -> None:
        with open(NOTES, "a") as notes:  # noqa: PTH123
            notes.write(f"{self.what}{more}\n")
        raise OSError(errno.EIO, f"503 Slow Down, on purpose{more}", self.what)
