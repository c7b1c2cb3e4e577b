import bz2
import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from tars import THREE, opened, pairs, read_all, tar_bytes

from capfilt.errors import ShardError
from capfilt.shards import archive, open_shard
from capfilt.shards.samples import MAX_METADATA_BYTES, MAX_TEXT, MAX_TEXT_BYTES


def compressed(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def test_any_split_of_a_shard_gives_the_same_samples(tmp_path):
    shard = opened(tmp_path, tar_bytes(*THREE))
    whole = read_all(shard)

    for cut in range(4):
        assert [*shard.read(0, cut), *shard.read(cut, 3)] == whole


def test_a_shard_that_got_shorter_is_noticed_before_a_sample_is_read(tmp_path):
    shard = opened(tmp_path, tar_bytes(*THREE))
    Path(shard.url).write_bytes(tar_bytes(*THREE)[:3000])

    with pytest.raises(ShardError, match=r"00000\.tar: has 3000 bytes, had 10240"):
        next(shard.read(0, 3))


def test_a_shard_that_changed_in_place_is_noticed_with_its_offset(tmp_path):
    shard = opened(tmp_path, tar_bytes(*THREE))
    other = [(name.replace("2", "7"), content) for name, content in THREE]
    Path(shard.url).write_bytes(tar_bytes(*other))

    assert len(list(shard.read(0, 2))) == 2
    with pytest.raises(ShardError, match=r"the header of 2\.jpg is gone from byte 4096"):
        list(shard.read(0, 3))


def test_a_shard_whose_header_is_none_any_more_is_noticed(tmp_path):
    shard = opened(tmp_path, tar_bytes(*THREE))
    Path(shard.url).write_bytes(bytes(shard.size))

    with pytest.raises(ShardError, match=r"the header of 0\.jpg is gone from byte 0"):
        list(shard.read(0, 3))


def test_a_shard_that_is_cut_while_it_is_read_is_noticed(tmp_path):
    shard = opened(tmp_path, tar_bytes(("0.jpg", b"a"), ("1.jpg", b"b" * 1_000_000)))  # more than Python reads ahead
    samples = shard.read(0, 2)
    next(samples)
    os.truncate(shard.url, 500_000)

    with pytest.raises(ShardError, match=r"ends inside 1\.jpg"):
        next(samples)


def test_what_is_too_large_is_dropped_or_cut_with_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_IMAGE_BYTES", 3)
    text, metadata = "a" + "я" * 30_000, b'"' + b"x" * MAX_METADATA_BYTES + b'"'
    members = ("0.jpg", b"four"), ("0.txt", text.encode()), ("0.json", metadata), ("1.jpg", b"the")

    large, other = read_all(opened(tmp_path, tar_bytes(*members)))

    assert (large.status, large.image, large.metadata) == ("too_large", b"", "")
    assert large.error == f"0.jpg has 4 bytes; metadata has over {MAX_METADATA_BYTES} bytes and is dropped"
    assert (large.text, large.text_status) == (text[:MAX_TEXT], "cut")
    assert (other.status, other.image) == ("ok", b"the")


@pytest.mark.parametrize(("suffix", "limit"), [("txt", MAX_TEXT_BYTES), ("json", MAX_METADATA_BYTES)])
def test_no_more_is_read_of_a_text_than_shows_that_it_is_too_large(tmp_path, suffix, limit):
    """What lies behind is gone by then, which nobody notices."""
    shard = opened(tmp_path, tar_bytes(("0.jpg", b"x"), (f"1.{suffix}", b"x" * 2 * limit)))
    samples = shard.read(0, 2)
    next(samples)
    os.truncate(shard.url, 2000 + limit)

    assert next(samples).key == "1"


def test_the_digest_tells_another_index_and_not_another_place(tmp_path):
    def written_at(seconds: int) -> bytes:
        info = tarfile.TarInfo("0.jpg")
        info.mtime = seconds
        return info.tobuf() + bytes(1024)

    digest = opened(tmp_path, tar_bytes(*THREE)).digest

    assert opened(tmp_path, tar_bytes(*THREE), "copy.tar").digest == digest
    assert opened(tmp_path, tar_bytes(*THREE[:4])).digest != digest
    assert opened(tmp_path, tar_bytes(*THREE[:5], ("2.txt", b"longer than it was"))).digest != digest
    assert opened(tmp_path, written_at(1)).digest != opened(tmp_path, written_at(2)).digest


def test_links_and_folders_are_never_followed(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, kind in (("0.jpg", tarfile.SYMTYPE), ("1.jpg", tarfile.LNKTYPE), ("2.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            tar.addfile(info)
        info = tarfile.TarInfo("2.txt")
        info.type, info.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(info)

    samples = read_all(open_shard(str(tmp_path / "0.tar")))

    assert [sample.status for sample in samples] == ["not_a_file"] * 3
    assert samples[0].error.startswith("0.jpg is a symbolic link, and is not followed; pack the file that it leads to")
    assert samples[2].error.startswith("2.jpg is a device, and is not read")
    assert samples[2].error.endswith("2.txt is cut off or is not a regular file, and is not read")
    assert not any(b"secret" in sample.image or "secret" in sample.text for sample in samples)


@pytest.mark.parametrize(
    ("form", "folder"),
    [
        (tarfile.USTAR_FORMAT, "folder"),
        (tarfile.GNU_FORMAT, "folder"),
        (tarfile.GNU_FORMAT, "folder/" * 20 + "фото"),
        (tarfile.PAX_FORMAT, "folder/" * 20 + "фото"),
    ],
)
def test_a_hard_link_is_the_earlier_member_that_it_leads_to(tmp_path, form, folder):
    """As tar and Python write them for files with an inode that they have packed already, here a link to a link."""
    (tmp_path / "0.jpg").write_bytes(b"image")
    (tmp_path / "0.txt").write_bytes(b"a dog")
    for n in (1, 2):
        for suffix in ("jpg", "txt"):
            os.link(tmp_path / f"0.{suffix}", tmp_path / f"{n}.{suffix}")
    with tarfile.open(tmp_path / "0.tar", "w", format=form) as tar:
        for n in range(3):
            for suffix in ("jpg", "txt"):
                tar.add(tmp_path / f"{n}.{suffix}", f"{folder}/{n}.{suffix}")
        assert [member.islnk() for member in tar.getmembers()] == [False, False, True, True, True, True]

    shard = open_shard(str(tmp_path / "0.tar"))

    assert shard.damage == ""
    assert pairs(shard) == [(f"{folder}/{n}", b"image", "a dog") for n in range(3)]


def test_a_hard_link_leads_to_the_last_earlier_member_of_its_archive_alone(tmp_path):
    def archive(*members: tuple[str, str | bytes]) -> bytes:
        with tarfile.open(tmp_path / "part", "w") as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                if isinstance(content, str):
                    info.type, info.linkname = tarfile.LNKTYPE, content
                else:
                    info.size = len(content)
                tar.addfile(info, io.BytesIO(content if isinstance(content, bytes) else b""))
        return (tmp_path / "part").read_bytes()

    first = archive(("0.jpg", "late.jpg"), ("late.jpg", b"x"), ("1.jpg", "late.jpg"), ("2.jpg", "2.jpg"))
    samples = read_all(opened(tmp_path, first + archive(("3.jpg", "late.jpg"), ("3.txt", "/etc/passwd"))))

    assert [(s.key, s.image, s.text, s.status) for s in samples] == [
        ("0", b"", "", "not_a_file"),
        ("late", b"x", "", "ok"),
        ("1", b"x", "", "ok"),
        ("2", b"", "", "not_a_file"),
        ("3", b"", "", "not_a_file"),
    ]
    told = "jpg is a hard link to a file that does not stand before it in the tar; pack it by tar --hard-dereference"
    assert samples[0].error == f"0.{told}"
    assert samples[4].error == f"3.{told}; 3.txt is cut off or is not a regular file, and is not read"


def test_a_pickle_member_is_never_loaded(tmp_path):
    bomb = b"cos\nsystem\n(S'touch bombed'\ntR."

    (sample,) = read_all(opened(tmp_path, tar_bytes(("0.pyd", bomb), ("0.jpg", b"x"), ("0.pickle", bomb))))

    assert (sample.key, sample.status) == ("0", "ok")


def test_a_path_that_leaves_the_folder_is_only_a_key(tmp_path):
    samples = read_all(opened(tmp_path, tar_bytes(("../../out.jpg", b"x"), ("/abs.jpg", b"y"))))

    assert [(sample.key, sample.image) for sample in samples] == [("../../out", b"x"), ("/abs", b"y")]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (compressed("zstd", tar_bytes(*THREE)), r"packed by zstd; unpack it \(zstd -d\), or pack it by gzip"),
        (compressed("lz4", tar_bytes(*THREE)), r"packed by lz4; unpack it \(lz4 -d\)"),
        (lzma.compress(tar_bytes(*THREE)), r"packed by xz; unpack it \(xz -d\)"),
        (bz2.compress(tar_bytes(*THREE)), r"packed by bzip2; unpack it \(bzip2 -d\)"),
        (gzip.compress(gzip.compress(tar_bytes(*THREE))), r"packed twice by gzip; unpack it once"),
        (b"PK\x03\x04" + bytes(600), "a zip archive; pack its files as a tar"),
        (b"PARE" + bytes(600), "an encrypted Parquet file; write it without encryption"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS; fetch it again, by git lfs pull"),
    ],
    ids=["zstd", "lz4", "xz", "bzip2", "gzip twice", "zip", "Parquet", "LFS"],
)
def test_a_file_that_is_no_tar_for_a_known_reason_is_told_with_what_to_do(tmp_path, data, told):
    with pytest.raises(ShardError, match=rf"00000\.tar: is not a tar but {told}"):
        opened(tmp_path, data)


def test_a_tar_may_begin_with_any_name(tmp_path):
    assert [sample.key for sample in read_all(opened(tmp_path, tar_bytes(("BZh.jpg", b"x"))))] == ["BZh"]
