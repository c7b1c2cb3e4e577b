import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from capfilt.shards import open_shard
from capfilt.world.facts import is_true
from capfilt.world.noise import NoiseRates
from capfilt.world.scenes import scene_at, scene_from_metadata
from capfilt.world.shards import World, write_world

WEB = World(seed=3, split="web", rates=NoiseRates())
HUMAN = World(seed=3, split="human")


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as file:
        return {member.name: file.extractfile(member).read() for member in file}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    write_world(folder, WEB, samples=250, samples_per_shard=100)
    return folder


def test_a_world_is_cut_into_shards_with_sidecars_and_stats(web):
    assert sorted(content(web)) == [
        f"{shard:05d}{ending}" for shard in range(3) for ending in (".parquet", ".tar", "_stats.json")
    ]
    assert [pq.read_metadata(web / f"{shard:05d}.parquet").num_rows for shard in range(3)] == [100, 100, 50]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_gives_others(web, tmp_path):
    write_world(tmp_path / "again", WEB, samples=250, samples_per_shard=100)
    write_world(tmp_path / "other", World(4, "web", NoiseRates()), samples=250, samples_per_shard=100)
    assert content(tmp_path / "again") == content(web)
    assert (tmp_path / "other/00000.tar").read_bytes() != (web / "00000.tar").read_bytes()


def test_every_attempted_sample_has_a_row_and_only_the_downloaded_ones_have_members(web):
    failed = 0
    for shard in range(3):
        rows = pq.read_table(web / f"{shard:05d}.parquet").to_pylist()
        whole = [row["key"] for row in rows if row["status"] == "success"]
        names = sorted(members(web / f"{shard:05d}.tar"))
        assert names == [f"{key}.{suffix}" for key in whole for suffix in ("jpg", "json", "txt")]
        failed += len(rows) - len(whole)
    assert 1 <= failed <= 15


def test_the_stats_count_the_rows(web):
    rows = pq.read_table(web / "00000.parquet").to_pylist()
    stats = json.loads((web / "00000_stats.json").read_text())
    failed = sum(row["status"] == "failed_to_download" for row in rows)
    assert stats["count"] == 100
    assert (stats["successes"], stats["failed_to_download"], stats["failed_to_resize"]) == (100 - failed, failed, 0)
    assert sum(stats["status_dict"].values()) == 100


def test_a_sample_of_a_later_shard_is_the_scene_of_its_index(web):
    files = members(web / "00002.tar")
    metadata = files["000020042.json"].decode()
    assert scene_from_metadata(metadata) == scene_at(3, "web", 242)
    assert json.loads(metadata)["caption"] == files["000020042.txt"].decode()
    assert json.loads(metadata)["sha256"] == hashlib.sha256(files["000020042.jpg"]).hexdigest()


def test_the_kind_of_a_web_text_agrees_with_the_scene_in_the_metadata(web):
    for name, data in members(web / "00000.tar").items():
        if name.endswith(".json"):
            sample = json.loads(data)
            scene = scene_from_metadata(data.decode())
            assert sample["kind"] == "other_image" or is_true(sample["caption"], scene) == (
                sample["kind"] in ("true", "html")
            )


def test_human_shards_hold_several_true_captions(tmp_path):
    write_world(tmp_path, HUMAN, samples=40)
    files = members(tmp_path / "00000.tar")
    samples = [json.loads(data) for name, data in files.items() if name.endswith(".json")]
    assert len(samples) >= 35
    for sample in samples:
        scene = scene_from_metadata(json.dumps(sample))
        assert len(set(sample["captions"])) == 5
        assert all(is_true(caption, scene) for caption in sample["captions"])
        assert sample["captions"][0] == sample["caption"] == files[f"{sample['key']}.txt"].decode()
        assert sample["kind"] == "human"


def test_images_have_the_side_that_was_asked_for(tmp_path):
    write_world(tmp_path, World(0, "test", side=96), samples=2)
    for path, data in members(tmp_path / "00000.tar").items():
        if path.endswith(".jpg"):
            (tmp_path / path).write_bytes(data)
            assert np.asarray(Image.open(tmp_path / path)).shape == (96, 96, 3)


def test_shards_with_more_samples_than_keys_have_digits_are_refused(tmp_path):
    with pytest.raises(ValueError, match="20000 samples in a shard"):
        write_world(tmp_path, HUMAN, samples=20000, samples_per_shard=20000)


def test_capfilt_reads_a_world_shard_whole(web):
    reader = open_shard(str(web / "00000.tar"))
    samples = list(reader.read(0, reader.samples))
    assert reader.damage == ""
    assert all(sample.status == "ok" for sample in samples)
    assert [scene_from_metadata(sample.metadata) for sample in samples] == [
        scene_at(3, "web", int(sample.key[5:])) for sample in samples
    ]
