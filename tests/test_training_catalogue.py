"""The shards of a run are looked at once, and are the same ones ever after."""

from pathlib import Path

import pytest
from pairs import sample, write_shard
from tars import tar_bytes

from capfilt.config.data import DataSettings
from capfilt.errors import ConfigError, RunError, ShardError
from capfilt.training import catalogue as module
from capfilt.training.catalogue import Catalogue


@pytest.fixture
def folder(tmp_path) -> Path:
    for shard, count in enumerate((3, 5, 4)):
        write_shard(tmp_path / "set", map(sample, range(count)), f"{shard:05d}.tar")
    return tmp_path / "set"


def look(*folders: Path | str, file: Path | None = None, parts: int = 1, **changes: object) -> Catalogue:
    sources = [{"shards": [str(each)], "parts": parts} for each in folders]
    return Catalogue(DataSettings.model_validate({"sources": sources, **changes}), str(file) if file else None)


def cut(folder: Path) -> Path:
    """Cut a shard between two samples, where other readers see nothing wrong."""
    path = folder / "00001.tar"
    path.write_bytes(path.read_bytes()[: 2 * 2048])
    return path


def test_it_holds_counts_and_no_sample(folder):
    found = look(folder)
    assert found.samples == [3, 5, 4]
    assert [Path(shard.url).name for shard in found.shards] == ["00000.tar", "00001.tar", "00002.tar"]
    assert (found.sources, found.epochs(0), found.epoch_samples) == ([[0, 1, 2]], [[0, 1, 2]], 12)


def test_the_parts_of_a_source_are_every_nth_shard(folder):
    found = look(folder, parts=2)
    assert (found.epochs(0), found.epoch_samples) == ([[0, 2], [1]], 6)
    with pytest.raises(ConfigError, match=r"set has 3 shards, fewer than its 4 parts; lower parts"):
        look(folder, parts=4)


def test_a_shard_of_two_sources_is_one_shard(folder):
    found = look(folder, f"{folder}/00001.tar")
    assert (found.samples, found.sources) == ([3, 5, 4], [[0, 1, 2], [1]])


def test_a_run_goes_on_with_what_it_wrote_down_and_looks_at_no_shard_again(folder, monkeypatch):
    before = look(folder, file=folder.parent / "shards.parquet")
    monkeypatch.setattr(module, "shard_at", lambda _, url: pytest.fail(f"{url} was opened"))
    assert look(folder, file=folder.parent / "shards.parquet").shards == before.shards


def test_the_shards_are_the_same_by_a_path_from_another_folder(folder, monkeypatch):
    file = folder.parent / "shards.parquet"
    monkeypatch.chdir(folder.parent)
    before = look("set", file=file)
    monkeypatch.chdir(folder)
    assert before.open(1).samples == 5
    assert look(folder, file=file).shards == before.shards


def test_the_shards_are_the_same_by_a_path_that_goes_up_or_through_a_link(folder, monkeypatch):
    file = folder.parent / "shards.parquet"
    (folder.parent / "link").symlink_to("set")
    monkeypatch.chdir(folder)
    before = look("../set", "../set/00001.tar", file=file)
    monkeypatch.chdir(folder.parent)
    for path in ("set/../set", "link/", folder):
        again = look(path, f"{path}/00001.tar", file=file)
        assert (again.sources, again.samples) == (before.sources, before.samples)
        assert again.open(1).samples == 5


def test_a_shard_that_counted_twice_by_two_paths_does_so_ever_after(folder):
    file = folder.parent / "shards.parquet"
    paths = folder, f"{folder}/../set"
    before = look(*paths, file=file)
    assert look(*paths, file=file).sources == before.sources == [[3, 4, 5], [0, 1, 2]]


def test_shards_that_came_or_went_since_are_refused_by_name(folder):
    file = folder.parent / "shards.parquet"
    look(folder, file=file)
    (folder / "00000.tar").rename(folder / "00009.tar")
    with pytest.raises(RunError, match=r"2 differ; put them back.*gone: .*00000\.tar, new: .*00009\.tar"):
        look(folder, file=file)


def test_a_table_of_shards_that_is_damaged_is_told_with_the_remedy(folder):
    look(folder, file=folder / "shards.parquet")
    (folder / "shards.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunError, match=r"shards\.parquet: is not a plan \(.+\); remove the file and train again: the "):
        look(folder, file=folder / "shards.parquet")


def test_a_shard_that_changed_since_is_refused_when_it_is_opened(folder):
    found = look(folder)
    assert found.open(1).samples == 5
    write_shard(folder, map(sample, range(6)), "00001.tar")
    with pytest.raises(ShardError, match=r"00001\.tar: has changed since the run started; put it back"):
        found.open(1)


def test_a_damaged_shard_ends_the_run_before_it_starts(folder):
    cut(folder)
    with pytest.raises(ShardError, match=r"00001\.tar: no end mark .* set data\.damage: keep-readable"):
        look(folder)


def test_or_what_can_be_read_of_it_is_used_and_the_loss_told(folder, caplog):
    cut(folder)
    found = look(folder, damage="keep-readable")
    assert found.samples == [3, 2, 4]
    assert "00001.tar: 2 samples can be read: no end mark" in caplog.text
    assert "no end mark" in found.shards[1].damage


def test_an_empty_shard_is_passed_over_and_told(folder, caplog):
    """An export writes one where the policy keeps nothing of a shard."""
    write_shard(folder, [], "00001.tar")
    assert look(folder).sources == [[0, 2]]
    assert "00001.tar: 0 samples can be read: holds no samples" in caplog.text


def test_a_shard_of_other_things_than_samples_is_damaged_as_it_is_to_a_bootstrap(folder, caplog):
    (folder / "00001.tar").write_bytes(tar_bytes(("0.npy", b"pixels")))
    with pytest.raises(ShardError, match=r"00001\.tar: holds no samples: none of its 1 members .* set data\.damage"):
        look(folder)
    assert look(folder, damage="keep-readable").sources == [[0, 2]]
    assert "00001.tar: 0 samples can be read: holds no samples: none of its 1 members" in caplog.text


def test_a_file_that_is_no_shard_is_left_out_only_where_that_is_asked_for(folder, caplog):
    (folder / "00001.tar").write_bytes(b"")
    with pytest.raises(
        ShardError, match=r"^[^:]*00001\.tar: is empty, 0 bytes; fetch it again, or set data\.damage: keep-readable$"
    ):
        look(folder)
    assert look(folder, damage="keep-readable").sources == [[0, 2]]
    assert "00001.tar: 0 samples can be read" in caplog.text


def test_a_source_without_a_sample_is_named(folder):
    (folder / "empty").mkdir()
    (folder / "empty" / "0.tar").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no sample in .*empty"):
        look(folder, folder / "empty", damage="keep-readable")


def test_clean_shards_whose_export_is_not_finished_are_warned_of(folder, caplog):
    told = f"{folder}: its export is not finished; this training uses only the shards that are there now"
    assert look(folder)
    assert told not in caplog.text
    (folder / "policy.yaml").touch()
    assert look(folder).samples == [3, 5, 4]
    assert [record.getMessage() for record in caplog.records] == [told]
    (folder / "_SUCCESS").touch()
    caplog.clear()
    assert look(folder, f"{folder}/00001.tar")
    assert not caplog.records
