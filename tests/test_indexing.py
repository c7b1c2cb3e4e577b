import os
from pathlib import Path

import pytest
from fakes import NAMES, job_config, write_shard

from capfilt import indexing
from capfilt.errors import ShardError
from capfilt.indexing import index_shard, indexed_shards, known_shard, open_planned
from capfilt.runs import Run, start_run
from capfilt.shards.archive import TarShard
from capfilt.shards.stored import IndexedTar

COLOURS = [("red", "a"), ("blue", "b"), ("green", "c")]


@pytest.fixture
def run(tmp_path) -> Run:
    return start_run(job_config(tmp_path), NAMES)


@pytest.fixture
def url(tmp_path) -> str:
    return write_shard(tmp_path / "in/00000.tar", COLOURS)


def test_a_planned_tar_is_opened_without_a_walk(run, url, monkeypatch):
    shard = index_shard(run, "00000", url)
    walked = TarShard(url, b"")
    monkeypatch.setattr(indexing, "open_shard", lambda url: pytest.fail(f"{url} was walked through"))

    reader = open_planned(run, shard)

    assert [*reader.read(1, 3)] == [*walked.read(1, 3)]
    assert (reader.size, reader.digest, reader.samples) == (shard.size, shard.digest, 3)
    assert indexed_shards(run) == {"00000"}


def test_a_copy_of_the_planned_file_is_taken_after_a_walk(run, url):
    shard = index_shard(run, "00000", url)
    data = Path(url).read_bytes()
    Path(url).unlink()
    Path(url).write_bytes(data)

    reader = open_planned(run, shard)

    assert isinstance(reader, TarShard)
    assert reader.digest == shard.digest


def test_another_file_of_the_same_size_and_time_is_refused(run, url):
    """Neither the size nor the time of its content tells."""
    shard = index_shard(run, "00000", url)
    before = Path(url).stat()
    data = Path(url).read_bytes().replace(b"000002.", b"000009.")
    Path(url).write_bytes(data)
    os.utime(url, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(ShardError, match=r"00000\.tar: .*changed since it was planned|no tar header"):
        open_planned(run, shard)


def test_a_file_that_is_gone_is_named(run, url):
    shard = index_shard(run, "00000", url)
    Path(url).unlink()

    with pytest.raises(ShardError, match=r"00000\.tar: there is no such file"):
        open_planned(run, shard)


@pytest.mark.parametrize("content", [b"", b"no index", None])
def test_an_index_that_is_none_is_done_without(run, url, content):
    shard = index_shard(run, "00000", url)
    path = Path(run.indexes, "00000.index")
    half = path.read_bytes()[:-20]
    path.write_bytes(half if content is None else content)

    assert isinstance(open_planned(run, shard), TarShard)
    assert known_shard(run, "00000", url) is None


def test_the_index_of_another_plan_is_not_believed(run, url):
    shard = index_shard(run, "00000", url)
    write_shard(Path(url), COLOURS[:2])
    index_shard(run, "00000", url)

    with pytest.raises(ShardError, match="changed since it was planned"):
        open_planned(run, shard)


def test_what_an_index_knows_is_what_a_walk_finds(run, url):
    shard = index_shard(run, "00000", url)

    assert known_shard(run, "00000", url) == shard
    write_shard(Path(url), COLOURS[:2])
    assert known_shard(run, "00000", url) is None


def test_a_damaged_shard_has_an_index_and_is_not_known_by_it(run, url):
    """What is missing beside it may have come."""
    Path(url).write_bytes(Path(url).read_bytes()[:-9000])

    shard = index_shard(run, "00000", url)

    assert shard.damage
    assert isinstance(open_planned(run, shard), IndexedTar)
    assert known_shard(run, "00000", url) is None


def test_a_file_that_is_no_tar_needs_no_index(run, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.csv").write_text("image,caption\na.jpg,a\n")
    shard = index_shard(run, "0", str(tmp_path / "in/0.csv"))

    assert (shard.samples, shard.damage) == (1, "")
    assert open_planned(run, shard).samples == 1
    assert indexed_shards(run) == set()


def test_a_file_that_changes_while_it_is_walked_leaves_no_index(run, url, monkeypatch):
    versions = iter(["1", "2"])
    monkeypatch.setattr(indexing.storage, "version", lambda path: next(versions))

    index_shard(run, "00000", url)

    assert indexed_shards(run) == set()
