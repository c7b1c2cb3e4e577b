"""Tars made in memory, and then damaged at known places."""

import io
from pathlib import Path

from capfilt.records import Sample
from capfilt.shards import ShardReader, open_shard, write_tar

THREE = [(f"{n}.{suffix}", f"{suffix} of {n}".encode()) for n in range(3) for suffix in ("jpg", "txt")]
"""Three samples; each member takes two blocks, so member k begins at byte 1024 * k."""


def tar_bytes(*members: tuple[str, bytes]) -> bytes:
    file = io.BytesIO()
    write_tar(file, members)
    return file.getvalue()


def opened(folder: Path, data: bytes, name: str = "00000.tar") -> ShardReader:
    (folder / name).write_bytes(data)
    return open_shard(str(folder / name))


def read_all(shard: ShardReader) -> list[Sample]:
    samples = list(shard.read(0, shard.samples))
    assert [sample.position for sample in samples] == list(range(shard.samples))
    return samples


def pairs(shard: ShardReader) -> list[tuple[str, bytes, str]]:
    return [(sample.key, sample.image, sample.text) for sample in read_all(shard)]
