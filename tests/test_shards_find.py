from pathlib import Path

import fsspec
import pytest

from capfilt.errors import ConfigError
from capfilt.shards import find_shards


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("00000.tar", "00001.tar", "00002.tgz", "00000.parquet", "00000_stats.json", "list.csv"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(inputs, folder) -> list[str]:
    return [Path(path).name for path in find_shards([f"{folder}/{given}" for given in inputs])]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([""], ["00000.tar", "00001.tar", "00002.tgz"]),
        (["00001.tar"], ["00001.tar"]),
        (["*.tar"], ["00000.tar", "00001.tar"]),
        (["*"], ["00000.parquet", "00000.tar", "00001.tar", "00002.tgz", "list.csv"]),
        (["{00000..00001}.tar"], ["00000.tar", "00001.tar"]),
        (["0000{0,1}.tar", "00001.tar"], ["00000.tar", "00001.tar"]),
        (["0000{0..1}.t{ar,ar}"], ["00000.tar", "00001.tar"]),
        (["list.csv"], ["list.csv"]),
    ],
)
def test_inputs_expand_to_shards_in_order_and_each_once(folder, inputs, expected):
    assert names(inputs, folder) == expected


def test_a_folder_without_tars_gives_its_parquet_files_and_then_its_lists(folder):
    for path in folder.glob("*.t*"):
        path.unlink()
    assert names([""], folder) == ["00000.parquet"]
    (folder / "00000.parquet").unlink()
    assert names([""], folder) == ["list.csv"]


@pytest.mark.parametrize("given", ["nowhere", "nowhere.tar", "*.zip", "00000_stats.json"])
def test_an_input_that_matches_nothing_is_an_error(folder, given):
    with pytest.raises(ConfigError, match="matches no shard"):
        names(["00000.tar", given], folder)


def test_a_gap_in_a_range_is_an_error_that_names_the_first(folder):
    with pytest.raises(ConfigError, match=r"names 4 files, 2 are missing, first \S+00002\.tar; narrow"):
        names(["{00000..00003}.tar"], folder)


@pytest.mark.parametrize("given", ["{9..0}.tar", "{0..99999999999}.tar"])
def test_a_range_without_sense_is_an_error(folder, given):
    with pytest.raises(ConfigError, match="the range"):
        names([given], folder)


def test_urls_are_listed_as_folders_are():
    store = fsspec.filesystem("memory")
    for name in ("a/0.tar", "a/1.tar"):
        store.pipe_file(f"/found/{name}", b"x")

    assert find_shards(["memory://found/a"]) == ["memory://found/a/0.tar", "memory://found/a/1.tar"]
    assert find_shards(["memory://found/a/{0..1}.tar"]) == ["memory://found/a/0.tar", "memory://found/a/1.tar"]
    assert [path.rpartition("/")[2] for path in find_shards(["memory://found/*/*.tar"])] == ["0.tar", "1.tar"]
