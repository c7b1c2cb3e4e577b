import tarfile

import pytest
from tars import opened, pairs, read_all, tar_bytes

from capfilt.records import PassedOver
from capfilt.shards import archive, open_shard
from capfilt.shards.grouping import split_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("0001.jpg", ("0001", "image")),
        ("0001.JPEG", ("0001", "image")),
        ("a/0001.txt", ("a/0001", "text")),
        ("0001.caption", ("0001", "text")),
        ("v1.2.photo.jpg", ("v1.2.photo", "image")),
        ("v1.2/0001.json", ("v1.2/0001", "metadata")),
        ("0001.cls", ("0001.cls", None)),
        ("0001", ("0001", None)),
        ("folder.jpg/readme", ("folder.jpg/readme", None)),
        ("a/._0001.jpg", ("a/._0001.jpg", None)),
        ("__MACOSX/0001.jpg", ("__MACOSX/0001.jpg", None)),
        (".DS_Store", (".DS_Store", None)),
    ],
)
def test_the_key_is_the_path_without_its_last_known_suffix(name, expected):
    assert split_name(name) == expected


def test_keys_with_dots_are_neither_merged_nor_parted(tmp_path):
    names = ("v1.2.photo.jpg", "v1.3.photo.jpg", "v1.2.photo.txt", "v1.3.photo.txt")

    samples = pairs(opened(tmp_path, tar_bytes(*((name, name[:4].encode()) for name in names))))

    assert samples == [("v1.2.photo", b"v1.2", "v1.2"), ("v1.3.photo", b"v1.3", "v1.3")]


def test_scattered_members_make_one_sample_at_the_place_of_the_first(tmp_path):
    data = tar_bytes(
        ("b.txt", b"B"), ("a.jpg", b"a"), ("c.jpg", b"c"), ("b.jpg", b"b"), ("c.txt", b"C"), ("a.txt", b"A")
    )

    assert pairs(opened(tmp_path, data)) == [("b", b"b", "B"), ("a", b"a", "A"), ("c", b"c", "C")]


def test_equal_names_in_two_folders_are_two_samples(tmp_path):
    samples = read_all(opened(tmp_path, tar_bytes(("a/1.jpg", b"a"), ("b/1.jpg", b"b"))))

    assert [(sample.key, sample.status) for sample in samples] == [("a/1", "ok"), ("b/1", "ok")]


def test_every_image_has_a_position_also_under_a_key_that_is_taken(tmp_path):
    names = ("0.jpg", "0.txt", "0.jpg", "0.png", "0.txt", "1.jpg")

    samples = read_all(opened(tmp_path, tar_bytes(*((name, bytes([65 + n])) for n, name in enumerate(names)))))

    assert [(s.key, s.image, s.text, s.status) for s in samples] == [
        ("0", b"A", "B", "ok"),
        ("0", b"C", "E", "duplicate_key"),
        ("0", b"D", "", "duplicate_key"),
        ("1", b"F", "", "ok"),
    ]


@pytest.mark.parametrize("suffixes", [("jpg", "caption", "txt", "text"), ("txt", "text", "caption", "jpg")])
def test_a_txt_counts_before_texts_of_other_suffixes_wherever_it_stands(tmp_path, suffixes):
    members = [(f"0.{suffix}", suffix.encode()) for suffix in suffixes]
    for n, suffix in enumerate(("caption", "TEXT"), 1):
        members += [(f"{n}.jpg", b"x"), (f"{n}.{suffix}", suffix.encode())]

    samples = pairs(opened(tmp_path, tar_bytes(*members)))

    assert samples == [("0", b"jpg", "txt"), ("1", b"x", "caption"), ("2", b"x", "TEXT")]


def test_a_text_or_json_without_an_image_is_a_sample_without_one(tmp_path):
    samples = read_all(opened(tmp_path, tar_bytes(("0.txt", b"a dog"), ("1.json", b"{}"), ("2.jpg", b""))))

    assert [(s.status, s.text_status) for s in samples] == [
        ("no_image", "ok"),
        ("no_image", "missing"),
        ("empty_image", "missing"),
    ]


def test_a_sample_whose_image_has_an_unknown_suffix_says_which(tmp_path):
    members = (
        ("0.xcf", b"image"),
        ("0.cls", b"3"),
        ("0.txt", b"a dog"),
        ("1.txt", b"b"),
        ("2.jpg", b"c"),
        ("2.cls", b"3"),
        ("v1.2.txt", b"d"),
        ("v1.2.JPG.bak", b"image"),
        ("v1.txt", b"e"),
        ("v1.jpgx", b"image"),
    )

    samples = read_all(opened(tmp_path, tar_bytes(*members)))

    lead = "no member with its key is an image"
    assert [(s.key, s.status, s.image, s.text, s.error) for s in samples] == [
        ("0", "no_image", b"", "a dog", f"{lead}; 0.xcf has no suffix that is read"),
        ("1", "no_image", b"", "b", lead),
        ("2", "ok", b"c", "", ""),
        ("v1.2", "no_image", b"", "d", f"{lead}; v1.2.JPG.bak has no suffix that is read"),
        ("v1", "no_image", b"", "e", f"{lead}; v1.jpgx has no suffix that is read"),
    ]


def test_what_stands_in_the_place_of_an_image_is_a_file_of_the_samples_own_key_and_archive(tmp_path):
    strange = ("a.txt", "a.b/README", ".txt", "README", "0.txt", "._0.xcf", "__MACOSX/0.jpg", "0.a.b.c", "1.xcf")
    with tarfile.open(tmp_path / "first.tar", "w") as tar:
        folder = tarfile.TarInfo("0.d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    first = (tmp_path / "first.tar").read_bytes()[:512] + tar_bytes(*((name, b"x") for name in strange))
    second = tar_bytes(("0.xcf", b"x"), ("1.txt", b"x"))

    samples = read_all(opened(tmp_path, first + second))

    assert [(s.key, s.error) for s in samples] == [
        (key, "no member with its key is an image") for key in ("a", "", "0", "1")
    ]


def test_a_large_file_in_the_place_of_an_image_is_no_large_image(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_IMAGE_BYTES", 3)
    (sample,) = read_all(opened(tmp_path, tar_bytes(("0.mp4", b"four"), ("0.txt", b"a dog"))))

    assert (sample.status, sample.error) == (
        "no_image",
        "no member with its key is an image; 0.mp4 has no suffix that is read",
    )


def test_members_of_no_sample_are_counted_by_suffix(tmp_path):
    names = ("0.jpg", "0.cls", "1.CLS", "a.tar/README", "b/inner.tar", "__MACOSX/._0.jpg", "1.txt")

    shard = opened(tmp_path, tar_bytes(*((name, b"x") for name in names)))

    assert shard.passed_over == {
        ".cls": PassedOver(2, "0.cls"),
        "no suffix": PassedOver(1, "a.tar/README"),
        ".tar": PassedOver(1, "b/inner.tar"),
        "litter of macOS": PassedOver(1, "__MACOSX/._0.jpg"),
    }


def test_suffixes_without_end_are_not_all_kept(tmp_path):
    shard = opened(tmp_path, tar_bytes(*((f"a.{n:04d}", b"x") for n in range(100))))

    assert len(shard.passed_over) < 40
    assert sum(some.members for some in shard.passed_over.values()) == 100


def test_folders_are_not_passed_over(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/0.jpg").write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "in", "in")

    assert open_shard(str(tmp_path / "a.tar")).passed_over == {}
