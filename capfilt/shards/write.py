"""Write tar shards: the same members give the same bytes, on every machine and at any time."""

import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import BinaryIO


def write_tar(target: Path | str | BinaryIO, members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, content) pairs as a tar with fixed times and owners, one member in memory at a time.

    A name that ustar cannot hold (long, or not ASCII) gets a pax record.
    """
    if not isinstance(target, (str, Path)):
        _write(target, members)
        return
    with Path(target).open("wb") as file:
        _write(file, members)


def _write(file: BinaryIO, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)  # time 0, owner 0, mode 0o644
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
