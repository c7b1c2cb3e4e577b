import gzip
import json
import random
from collections import Counter
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tars import THREE, opened, pairs, read_all, tar_bytes

from capfilt.errors import ShardError
from capfilt.shards import open_shard
from capfilt.shards.find import find_shards

SHARED_TARS = {  # samples, their statuses other than ok, and how the damage begins
    "badinput/dev/tars/dpf_bad_image.tar": (3, {}, ""),
    "badinput/dev/tars/made_bad_header.tar": (24, {}, "no tar header at byte 166912"),
    "badinput/dev/tars/made_cut_in_member.tar": (14, {}, "cut inside the tar header at byte 221184"),
    "badinput/dev/tars/made_gzip_named.tar": (6, {}, ""),
    "badinput/dev/tars/made_only_end.tar": (0, {}, ""),
    "badinput/dev/tars/made_mixed.tar": (
        21,
        {"no_image": 1, "empty_image": 1, "duplicate_key": 1, "not_a_file": 1},
        "",
    ),
    "peers/torchtitan-cc12m-train-0000.tar": (32, {}, ""),
    "peers/wds-sample.tgz": (90, {}, ""),
    "peers/wds-testgz.tar": (0, {}, "holds no samples: none of its 1000 members"),
    "peers/video2dataset-return_all.tar": (6, {"no_image": 6}, ""),
    "peers/dpf-correct-0.csv": (2, {"no_image": 2}, ""),
}


@pytest.mark.parametrize("name", SHARED_TARS)
def test_every_awkward_file_is_accounted_for(shared, name):
    samples, statuses, damage = SHARED_TARS[name]

    shard = open_shard(str(shared / "data" / name))

    found = Counter(sample.status for sample in read_all(shard))
    assert (shard.samples, {status: n for status, n in found.items() if status != "ok"}) == (samples, statuses)
    assert shard.damage.startswith(damage)
    assert bool(shard.damage) == bool(damage)


def test_texts_of_the_mixed_tar_have_their_status(shared):
    samples = read_all(open_shard(str(shared / "data/badinput/dev/tars/made_mixed.tar")))

    assert {s.key: s.text_status for s in samples if s.text_status != "ok"} == {
        "000000003": "missing",
        "000000006": "empty",
        "000000007": "not_utf8",
        "000000008": "missing",
        "000000009": "missing",
    }
    assert "v1.2.photo" in {sample.key for sample in samples}


@pytest.mark.parametrize("name", ["absent.tar", ""])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(ShardError, match="there is no such file"):
        open_shard(str(tmp_path / name))


def test_a_folder_with_the_name_of_a_shard_is_told_with_how_to_read_what_is_in_it(tmp_path):
    (tmp_path / "0.tar").mkdir()
    opened(tmp_path / "0.tar", tar_bytes(*THREE))
    with pytest.raises(
        ShardError, match=r"0\.tar: there is no such file, but a folder; for the shards .* write (.*)/$"
    ):
        open_shard(str(tmp_path / "0.tar"))
    assert find_shards([f"{tmp_path}/0.tar/"]) == [f"{tmp_path}/0.tar/00000.tar"]


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ShardError, match=r"00000\.tar: is empty, 0 bytes; fetch it again"):
        opened(tmp_path, b"")


def test_a_shard_without_its_marker_is_unfinished_where_others_have_theirs(tmp_path):
    (tmp_path / "v1.2_stats.json").write_text("{}")

    assert opened(tmp_path, tar_bytes(*THREE), "v1.2.tar").damage == ""
    assert (
        opened(tmp_path, tar_bytes(*THREE), "00042.tar").damage == "unfinished: 00042_stats.json is missing beside it"
    )


def test_a_shard_of_another_tool_needs_no_marker(tmp_path):
    assert opened(tmp_path, tar_bytes(*THREE)).damage == ""


def test_an_object_store_serves_as_a_disk_does(tmp_path):
    fsspec.filesystem("memory").pipe_file("/opened/0.tar", tar_bytes(*THREE))

    assert pairs(open_shard("memory://opened/0.tar")) == pairs(opened(tmp_path, tar_bytes(*THREE)))


def _files() -> dict[str, bytes]:
    plain = tar_bytes(*THREE, ("a" * 150 + ".jpg", b"x" * 700), ("0.json", json.dumps({"caption": "x"}).encode()))
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"jpg": [b"x", None] * 20, "caption": ["a", "b"] * 20}), table)
    return {
        "0.tar": plain,
        "0.tgz": gzip.compress(plain, mtime=0),
        "0.parquet": table.getvalue().to_pybytes(),
        "0.csv": b'image,caption\na.jpg,"a ""dog"""\nb.jpg,b\n',
        "0.jsonl": b'{"image": "a.jpg", "caption": "a"}\n{"image": "b.jpg", "caption": null}\n',
    }


@pytest.mark.parametrize("name", _files())
@pytest.mark.parametrize("seed", range(60))
def test_damage_anywhere_gives_samples_or_a_shard_error_and_nothing_else(tmp_path, name, seed):
    rng = random.Random(seed)
    data = bytearray(_files()[name])
    for _ in range(rng.choice([1, 3, 30])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    path = Path(tmp_path, name)
    path.write_bytes(data)

    try:
        samples = read_all(open_shard(str(path)))
    except ShardError as error:
        said = str(error)
    else:
        said = str(path)
        for sample in samples:  # what a table can hold
            "".join([sample.key, sample.text, sample.url, sample.metadata, sample.error]).encode()

    assert said.startswith(str(path))
    assert "\n" not in said
