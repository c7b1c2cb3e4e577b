import gzip
import io
import re
import tarfile

import pytest
from tars import THREE, opened, pairs, read_all, tar_bytes

from capfilt.errors import ShardError
from capfilt.shards.headers import header_sum
from capfilt.shards.stored import index_bytes
from capfilt.shards.tar import index_tar

WHOLE = [(str(n), f"jpg of {n}".encode(), f"txt of {n}") for n in range(3)]
NAMES = ["a" * 90, "folder/" * 15 + "a", "фото 013", "a" * 240]


def overwritten(data: bytes, at: int, by: bytes) -> bytes:
    return data[:at] + by + data[at + len(by) :]


def test_a_whole_tar_has_no_damage(tmp_path):
    shard = opened(tmp_path, tar_bytes(*THREE))

    assert (shard.samples, shard.damage, shard.size) == (3, "", 10240)
    assert pairs(shard) == WHOLE


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((tarfile.USTAR_FORMAT, name) for name in NAMES[:3]),
        *((form, name) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT) for name in NAMES),
    ],
)
def test_long_and_foreign_names_are_read_in_every_format(tmp_path, form, name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for suffix in ("jpg", "txt"):
            info = tarfile.TarInfo(f"{name}.{suffix}")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))

    assert pairs(opened(tmp_path, file.getvalue())) == [(name, b"x", "x")]


def test_names_that_are_not_utf8_stay_apart(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for name in ("é.jpg", "è.jpg"):
            tar.addfile(tarfile.TarInfo(name))

    assert [sample.key for sample in read_all(opened(tmp_path, file.getvalue()))] == [r"\xe9", r"\xe8"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [(tarfile.AREGTYPE, "ok"), (tarfile.CONTTYPE, "ok"), (tarfile.GNUTYPE_SPARSE, "not_a_file")],
    ids=["old", "contiguous", "sparse"],
)
def test_a_file_is_told_by_its_kind(tmp_path, kind, status):
    data = tar_bytes(("0.jpg", b"data"), ("1.jpg", b"other"))
    info = tarfile.TarInfo("0.jpg")
    info.type, info.size = kind, 4
    first, second = read_all(shard := opened(tmp_path, info.tobuf() + data[512:]))

    assert (first.status, first.image) == (status, b"data" if status == "ok" else b"")
    assert (second.image, shard.damage) == (b"other", "")


def test_a_link_that_states_the_size_of_its_target_has_no_data_of_its_own(tmp_path):
    link = tarfile.TarInfo("1.jpg")
    link.type, link.linkname, link.size = tarfile.LNKTYPE, "0.jpg", 2000
    data = tar_bytes(("0.jpg", b"x" * 2000), ("2.jpg", b"y"))
    shard = opened(tmp_path, data[:2560] + link.tobuf() + data[2560:])

    assert pairs(shard) == [("0", b"x" * 2000, ""), ("1", b"x" * 2000, ""), ("2", b"y", "")]
    assert shard.damage == ""


def test_settings_of_all_members_are_no_member(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "a commit"}) as tar:
        tar.addfile(tarfile.TarInfo("0.jpg"))
    shard = opened(tmp_path, file.getvalue())

    assert (shard.samples, shard.damage) == (1, "")


def test_members_agree_with_the_standard_library_on_a_real_tar(shared):
    path = shared / "data/peers/torchtitan-cc12m-train-0000.tar"
    with tarfile.open(path) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar]
    with path.open("rb") as file:
        index = index_tar(file, path.stat().st_size)

    assert [(member.name, member.data, member.size) for member in index.members] == expected
    assert index.damage == ""


def test_reading_goes_on_behind_a_damaged_header(tmp_path):
    shard = opened(tmp_path, overwritten(tar_bytes(*THREE), 2048 + 100, b"rot"))

    assert shard.damage == "no tar header at byte 2048: bytes 2048 to 3072 are lost"
    assert [(sample.key, sample.status) for sample in read_all(shard)] == [("0", "ok"), ("1", "no_image"), ("2", "ok")]


@pytest.mark.parametrize("damage", [b"rot", bytes(512)])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_long_name_of_a_member_that_is_lost_goes_to_no_other(tmp_path, form, damage):
    """It stands in two blocks before the header of its member."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name in ("a" * 240 + ".jpg", "1.jpg"):
            tar.addfile(tarfile.TarInfo(name))

    shard = opened(tmp_path, overwritten(file.getvalue(), 1024, damage))

    assert [sample.key for sample in read_all(shard)] == ["1"]


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("before", [(), THREE])
def test_the_name_of_a_member_that_zeros_took_the_place_of_is_told(tmp_path, form, before):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("a" * 240 + ".jpg"))
    members = tar_bytes(*before)[: 1024 * len(before)]
    damaged = members + overwritten(file.getvalue(), 1024, bytes(512))

    told = f"the extended header before byte {len(members) + 1024} is of no member: one is missing"
    if before:
        assert opened(tmp_path, damaged).damage == told
    else:
        with pytest.raises(ShardError, match=told):
            opened(tmp_path, damaged)


@pytest.mark.parametrize("length", [1, 511, 512, 1000, 3800, 4000, 100_000])
def test_reading_goes_on_where_blocks_are_shifted(tmp_path, length):
    data = tar_bytes(*THREE)
    shard = opened(tmp_path, data[:2048] + b"\xff" * length + data[2048:])

    assert shard.damage.startswith(f"no tar header at byte 2048: bytes 2048 to {2048 + length} are lost")
    assert pairs(shard) == WHOLE


@pytest.mark.parametrize("alike", [b"ustar", b"012345\0 "])
def test_reading_goes_on_behind_what_only_looks_like_a_header(tmp_path, alike):
    data = tar_bytes(*THREE)

    assert pairs(opened(tmp_path, data[:2048] + alike * 200 + data[2048:])) == WHOLE


@pytest.mark.parametrize("length", [1, 512, 4000])
def test_headers_of_the_oldest_kind_are_found_behind_damage(tmp_path, length):
    data = tar_bytes(*THREE)
    for at in range(0, 1024 * len(THREE), 1024):
        block = overwritten(overwritten(data[at : at + 512], 257, bytes(255)), 136, b"014567012345")
        data = overwritten(data, at, overwritten(block, 148, b"%6o\0 " % header_sum(block)))
    assert b"ustar" not in data

    shard = opened(tmp_path, data[:2048] + b"\xff" * length + data[2048:])

    assert shard.damage == f"no tar header at byte 2048: bytes 2048 to {2048 + length} are lost"
    assert pairs(shard) == WHOLE


def test_reading_goes_on_behind_zeros_in_the_middle(tmp_path):
    shard = opened(tmp_path, overwritten(tar_bytes(*THREE), 2048, bytes(1024)))

    assert shard.damage == "more members at byte 3072, behind the end mark at byte 2048: read too"
    assert [sample.text for sample in read_all(shard)] == ["txt of 0", "txt of 1", "txt of 2"]


@pytest.mark.parametrize(
    ("cut", "damage"),
    [
        (5220, "cut inside the tar header at byte 5120: what followed is missing"),
        (5632, "cut at byte 5632 inside 2.txt, which begins at byte 5632: 0 of its 8 bytes are there"),
        (5635, "cut at byte 5635 inside 2.txt, which begins at byte 5632: 3 of its 8 bytes are there"),
    ],
)
def test_a_cut_is_told_with_its_byte_and_the_rest_is_read(tmp_path, cut, damage):
    shard = opened(tmp_path, tar_bytes(*THREE)[:cut])

    assert shard.damage == damage
    assert [sample.text for sample in read_all(shard)] == ["txt of 0", "txt of 1", ""]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("rest", [0, 10])
def test_a_cut_inside_what_is_said_of_the_next_member_makes_no_sample(tmp_path, kind, rest):
    """GNU tar names a pax record after its member, so that it looks like an image of its own."""
    info = tarfile.TarInfo("./PaxHeaders/1.jpg")
    info.type, info.size = kind, 28
    shard = opened(tmp_path, tar_bytes(*THREE[:2])[:2048] + info.tobuf() + b"28 mtime=1350244992.0239602\n"[:rest])

    where = f"cut at byte {2560 + rest} inside ./PaxHeaders/1.jpg, which begins at byte 2560"
    assert shard.damage == f"{where}: {rest} of its 28 bytes are there"
    assert pairs(shard) == WHOLE[:1]


def test_a_file_cut_inside_an_image_gives_a_sample_that_says_so(tmp_path):
    shard = opened(tmp_path, tar_bytes(("0.jpg", b"x" * 2000))[:1500])

    assert shard.damage == "cut at byte 1500 inside 0.jpg, which begins at byte 512: 988 of its 2000 bytes are there"
    (sample,) = read_all(shard)
    assert (sample.status, sample.image, sample.error) == ("truncated_member", b"", "the file ends inside 0.jpg")


def test_a_file_cut_between_two_members_is_damaged(tmp_path):
    shard = opened(tmp_path, tar_bytes(*THREE)[:4096])

    assert shard.damage == "no end mark at byte 4096: what followed is missing"
    assert pairs(shard) == WHOLE[:2]


def test_a_member_that_ends_where_the_file_does_is_whole(tmp_path):
    shard = opened(tmp_path, tar_bytes(("0.jpg", b"x" * 512))[:1024])

    assert shard.damage == "no end mark at byte 1024: what followed is missing"
    assert pairs(shard) == [("0", b"x" * 512, "")]


def test_a_cut_is_told_also_behind_another_damage(tmp_path):
    damage = opened(tmp_path, overwritten(tar_bytes(*THREE), 2048, b"rot")[:4096]).damage

    assert damage == (
        "no tar header at byte 2048: bytes 2048 to 3072 are lost; no end mark at byte 4096: what followed is missing"
    )


def test_a_second_archive_is_read_and_reported_and_never_mixed_with_the_first(tmp_path):
    first, second = tar_bytes(("0.jpg", b"first")), tar_bytes(("0.jpg", b"second"), ("0.txt", b"of the second"))
    shard = opened(tmp_path, first + second)

    assert shard.damage == "more members at byte 10240, behind the end mark at byte 1024: read too"
    assert [(s.image, s.text, s.status) for s in read_all(shard)] == [
        (b"first", "", "ok"),
        (b"second", "of the second", "duplicate_key"),
    ]


@pytest.mark.parametrize(("blocks", "samples"), [(1, [("0", b"x", "y")]), (2, [("0", b"x", ""), ("0", b"", "y")])])
def test_two_blocks_of_zeros_end_an_archive_and_one_does_not(tmp_path, blocks, samples):
    image, text = tar_bytes(("0.jpg", b"x"))[:1024], tar_bytes(("0.txt", b"y"))

    assert pairs(opened(tmp_path, image + bytes(512 * blocks) + text)) == samples


@pytest.mark.parametrize(
    ("count", "last"), [(5, "no tar header at byte 4096: bytes 4096 to 4608 are lost"), (10, "and 5 more")]
)
def test_many_damages_are_told_in_one_line(tmp_path, count, last):
    data = tar_bytes(*((f"{n}.txt", b"") for n in range(20)))
    for n in range(0, 2 * count, 2):
        data = overwritten(data, 512 * n, b"rot")

    *told, end = opened(tmp_path, data).damage.split("; ")

    assert end == last
    assert told == [
        f"no tar header at byte {n}: bytes {n} to {n + 512} are lost" for n in range(0, 1024 * len(told), 1024)
    ]


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><title>404</title>", b"version https://git-lfs", b"\x00\xff" * 5000, b"{}"]
)
def test_a_file_that_is_no_tar_is_refused_by_name(tmp_path, content):
    with pytest.raises(ShardError, match=r"00000\.tar: .*fetch it again"):
        opened(tmp_path, content)


@pytest.mark.parametrize("data", [tar_bytes(), bytes(1024), gzip.compress(tar_bytes(), mtime=0)])
def test_a_tar_of_nothing_but_its_end_is_whole(tmp_path, data):
    shard = opened(tmp_path, data)

    assert (shard.samples, shard.damage, read_all(shard)) == (0, "", [])


def test_a_tar_of_foreign_members_is_damaged(tmp_path):
    assert opened(tmp_path, tar_bytes(("0.cls", b"3"))).damage.startswith("holds no samples: none of its 1 members")


@pytest.mark.parametrize("length", [512, 1000, 1025, 10241, 1 << 20])
def test_zeros_that_are_no_tar_are_damaged(tmp_path, length):
    """A file for which room was made before its bytes came, or the start of one."""
    try:
        damage = opened(tmp_path, bytes(length)).damage
    except ShardError as error:
        damage = str(error)
    assert "holds no" in damage


SPARSE = {  # as GNU tar writes them, by their version: the member's name and its records
    "0.0": ("0.jpg", {"GNU.sparse.size": "1048577", "GNU.sparse.numblocks": "1"}),
    "0.1": ("GNUSparseFile.7/0.jpg", {"GNU.sparse.map": "0,3,1048576,1", "GNU.sparse.name": "0.jpg"}),
    "1.0": ("GNUSparseFile.7/0.jpg", {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "0.jpg"}),
}


@pytest.mark.parametrize("version", SPARSE)
def test_a_sparse_file_is_no_image_of_fewer_bytes(tmp_path, version):
    """Its holes are left out, and where they were stands in a map."""
    file = io.BytesIO()
    name, records = SPARSE[version]
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, pax_headers in ((name, records), ("0.txt", {}), ("1.jpg", {})):
            info = tarfile.TarInfo(member)
            info.size, info.pax_headers = 4, pax_headers
            tar.addfile(info, io.BytesIO(b"data"))

    first, second = read_all(shard := opened(tmp_path, file.getvalue()))

    assert (first.key, first.status, first.text, shard.damage) == ("0", "not_a_file", "data", "")
    assert first.error == "0.jpg is sparse, and is not put together; pack it without --sparse"
    assert (second.key, second.status) == ("1", "ok")


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_the_map_of_an_old_sparse_file_takes_blocks_before_its_data(tmp_path, blocks):
    """As GNU tar writes it by itself; four holes are in the header."""
    info = tarfile.TarInfo("0.jpg")
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 4
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[482] = blocks > 0
    header[148:156] = b"%06o\0 " % header_sum(bytes(header))
    rows = b"".join(b"7" * 504 + bytes([n < blocks]) + bytes(7) for n in range(1, blocks + 1))

    _, second = read_all(
        shard := opened(tmp_path, header + rows + tar_bytes(("0.jpg", b"data"), ("1.jpg", b"x"))[512:])
    )

    assert (second.key, second.image, shard.damage) == ("1", b"x", "")


@pytest.mark.parametrize(("stated", "told"), [("9" * 14, "9" * 14), ("9" * 19, str(2**63 - 1))])
def test_a_size_in_a_pax_record_that_goes_beyond_the_file_is_a_cut(tmp_path, stated, told):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("0.jpg")
        info.pax_headers = {"size": stated}
        tar.addfile(info)

    (sample,) = read_all(shard := opened(tmp_path, file.getvalue()))

    assert sample.status == "truncated_member"
    assert f"of its {told} bytes" in shard.damage
    index_bytes(shard, shard.damage, "")  # whose columns hold no more


def test_a_size_in_a_pax_record_that_no_file_can_have_does_not_count(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("0.jpg")
        info.size, info.pax_headers = 4, {"size": "9" * 5000}  # more digits than Python makes a number of
        tar.addfile(info, io.BytesIO(b"data"))

    assert pairs(opened(tmp_path, file.getvalue())) == [("0", b"data", "")]


LONG = b"%d comment=" % (2**20 + 12)


@pytest.mark.parametrize("records", [b"x path=a\n", LONG + b"x" * (2**20 + 11 - len(LONG)) + b"\n"], ids=["no", "long"])
def test_a_pax_record_that_is_none_or_too_long_is_told_and_the_rest_is_read(tmp_path, records):
    info = tarfile.TarInfo("PaxHeaders/0.jpg")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    shard = opened(tmp_path, info.tobuf() + records + bytes(-len(records) % 512) + tar_bytes(*THREE))

    assert re.fullmatch(r"the extended header at byte 512 cannot be read \(.+\): a name may be cut", shard.damage)
    assert pairs(shard) == WHOLE
