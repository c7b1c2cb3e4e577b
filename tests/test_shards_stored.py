import tarfile
from pathlib import Path

import pytest
from tars import THREE, opened, read_all, tar_bytes

from capfilt.errors import ShardError
from capfilt.shards.archive import TarShard
from capfilt.shards.stored import IndexedTar, index_bytes


def indexed(shard: object, version: str = "v1") -> IndexedTar:
    assert isinstance(shard, TarShard)
    return IndexedTar(shard.url, index_bytes(shard, shard.damage, version))


AWKWARD = (
    ("a/1.JPG", b"x"),
    ("a/1.json", b'{"caption": "of the JSON"}'),
    ("2.tar.png", b""),
    ("2.tar.txt", "Слово".encode()),
    ("3.txt", b"no image"),
    ("3.xcf", b"of no suffix that is read"),
    ("a/1.JPG", b"again"),
    ("4.cls", b"no part of a sample"),
    ("ü\n.webp", b"y"),
)


def test_an_indexed_tar_reads_as_the_walked_one_does(tmp_path):
    shard = opened(tmp_path, tar_bytes(*AWKWARD))
    again = indexed(shard)

    assert read_all(again) == read_all(shard)
    assert [*again.read(1, 3)] == [*shard.read(1, 3)]
    assert (again.size, again.digest, again.samples, again.damage) == (shard.size, shard.digest, 5, "")
    assert again.version == "v1"


def test_members_that_are_cut_or_links_stay_so(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        link = tarfile.TarInfo("0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    data = (tmp_path / "0.tar").read_bytes()[:512] + tar_bytes(("1.jpg", b"z" * 2000))[:1500]
    shard = opened(tmp_path, data)

    samples = read_all(indexed(shard))

    assert [sample.status for sample in samples] == ["not_a_file", "truncated_member"]
    assert samples == read_all(shard)
    assert indexed(shard).damage == shard.damage != ""


def test_an_index_of_no_samples_is_one(tmp_path):
    assert indexed(opened(tmp_path, tar_bytes(("0.cls", b"7")))).samples == 0


def test_a_file_that_changed_under_its_index_is_noticed(tmp_path):
    shard = indexed(opened(tmp_path, tar_bytes(*THREE)))
    Path(shard.url).write_bytes(tar_bytes(*((name.replace("2", "7"), content) for name, content in THREE)))
    assert len(list(shard.read(0, 2))) == 2
    with pytest.raises(ShardError, match=r"the header of 2\.jpg is gone from byte 4096"):
        list(shard.read(2, 3))

    Path(shard.url).write_bytes(tar_bytes(*THREE)[:3000])
    with pytest.raises(ShardError, match=r"has 3000 bytes, had 10240"):
        next(shard.read(0, 3))


@pytest.mark.parametrize("at", [0, 40, 500, -5])
def test_an_index_of_which_a_byte_flipped_is_none(tmp_path, at):
    shard = opened(tmp_path, tar_bytes(*THREE))
    assert isinstance(shard, TarShard)
    data = bytearray(index_bytes(shard, "", "v1"))
    data[at] ^= 1

    with pytest.raises(ValueError, match="its bytes are not those that were written"):
        IndexedTar(shard.url, bytes(data))
