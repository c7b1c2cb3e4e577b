import gzip
import zlib

import pytest
from tars import THREE, opened, pairs, read_all, tar_bytes

from capfilt.errors import ShardError
from capfilt.shards.unpack import Unpacked

WHOLE = [(str(n), f"jpg of {n}".encode(), f"txt of {n}") for n in range(3)]


@pytest.mark.parametrize("name", ["0.tgz", "0.tar", "0.tar.gz"])
def test_gzip_is_known_by_its_first_bytes(tmp_path, name):
    shard = opened(tmp_path, gzip.compress(tar_bytes(*THREE)), name)

    assert (pairs(shard), shard.damage) == (WHOLE, "")


@pytest.mark.parametrize("padding", [0, 1, 1000])
def test_streams_in_a_row_are_one_file_and_padding_is_nothing(tmp_path, padding):
    data = tar_bytes(*THREE)
    packed = gzip.compress(data[:3000]) + gzip.compress(data[3000:]) + bytes(padding)

    shard = opened(tmp_path, packed)

    assert (pairs(shard), shard.damage) == (WHOLE, "")


def test_a_cut_stream_gives_what_came_before(tmp_path):
    packed = gzip.compress(tar_bytes(*THREE), compresslevel=0)
    shard = opened(tmp_path, packed[:3200])

    assert shard.damage.startswith("the gzip data is cut at byte 3200: what followed is missing; cut inside")
    assert [sample.key for sample in read_all(shard)] == ["0", "1"]


def test_a_cut_stream_is_unpacked_to_its_last_byte(tmp_path):
    """Also where the last bytes wait inside zlib, since a call's worth of output was full before."""
    path = tmp_path / "0.tgz"
    for length in range((1 << 20) + 1, (1 << 20) + 600, 28):
        cut = gzip.compress(bytes(length))[:-10]
        path.write_bytes(cut)

        assert Unpacked(str(path)).size == len(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(cut))


def test_a_damaged_stream_is_told(tmp_path):
    packed = bytearray(gzip.compress(tar_bytes(*THREE)))
    packed[-6] ^= 1  # in the checksum

    shard = opened(tmp_path, bytes(packed))

    assert "the gzip data is damaged" in shard.damage
    assert pairs(shard) == WHOLE


def test_a_bomb_is_not_unpacked_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("capfilt.shards.unpack.FREE", 1 << 20)
    bomb = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    packed = bomb.compress(tar_bytes(*THREE))
    for _ in range(20):
        packed += bomb.compress(bytes(1 << 20))
    shard = opened(tmp_path, packed + bomb.flush())

    assert "and is not read further" in shard.damage
    assert pairs(shard) == WHOLE


def test_a_gzip_that_holds_no_tar_is_refused(tmp_path):
    with pytest.raises(ShardError, match="holds no tar member"):
        opened(tmp_path, gzip.compress(b"\xff\xd8 a picture" * 100))


def test_the_unpacked_copy_is_in_no_folder(tmp_path, monkeypatch):
    """A worker that is killed could not remove it."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))

    shard = opened(tmp_path, gzip.compress(tar_bytes(*THREE)))

    assert (pairs(shard), list((tmp_path / "scratch").iterdir())) == (WHOLE, [])
