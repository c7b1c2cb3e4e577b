import errno
import os
from pathlib import Path

import pytest
import torch
from disks import files_of
from safetensors.torch import save_file

from capfilt import storage


@pytest.fixture(params=["local", "file-url", "memory", "s3"])
def root(request, tmp_path):
    """Return an empty folder of each kind of storage."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://bucket{tmp_path}/out"
    return {
        "local": f"{tmp_path}/out",
        "file-url": f"file://{tmp_path}/out",
        "memory": f"memory://{tmp_path}/out",
    }[request.param]


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("run", "run/a/b"),
        ("run/", "run/a/b"),
        ("/", "/a/b"),
        ("s3://bucket/run", "s3://bucket/run/a/b"),
        ("memory://", "memory://a/b"),
    ],
)
def test_join_keeps_the_root(root, path):
    assert storage.join(root, "a", "b") == path


def test_what_is_published_can_be_read(root):
    path = storage.join(root, "deep", "file.bin")

    storage.publish(path, b"0123456789")

    assert storage.exists(path)
    assert storage.size(path) == 10
    assert storage.read_bytes(path) == b"0123456789"
    assert storage.read_bytes(path, 3, 4) == b"3456"
    assert storage.read_bytes(path, 8, 100) == b"89"
    assert storage.read_bytes(path, 10, 4) == storage.read_bytes(path, 12, 4) == b""
    with storage.open_input(path) as file:
        file.seek(7)
        assert file.read() == b"789"


def test_publishing_again_replaces_the_whole_file(root):
    path = storage.join(root, "file.bin")

    storage.publish(path, b"a longer content")
    storage.publish(path, b"short")

    assert storage.read_bytes(path) == b"short"


def test_listings_are_sorted_and_tell_files_from_folders(root):
    for name in ("b", "a", "c/inner"):
        storage.publish(storage.join(root, name), b"")

    assert storage.list_files(root) == ["a", "b"]
    assert storage.list_folders(root) == ["c"]
    assert storage.list_files(storage.join(root, "absent")) == []
    assert storage.list_folders(storage.join(root, "absent")) == []


def test_a_file_in_the_making_is_not_seen(root):
    path = storage.join(root, "file.bin")

    with storage.staged(path) as partial:
        partial.write_bytes(b"half")
        assert not storage.exists(path)
        assert storage.list_files(root) == []

    assert storage.list_files(root) == ["file.bin"]


def fail_half_way(path, error):
    with storage.staged(path) as partial:
        partial.write_bytes(b"half")
        raise error


def test_a_block_that_raises_publishes_nothing_and_cleans_up(root):
    path = storage.join(root, "file.bin")

    with pytest.raises(KeyError, match="the caller's own error"):
        fail_half_way(path, KeyError("the caller's own error"))

    assert not storage.exists(path)
    assert storage.list_files(root) == []


def write_to_a_full_disk(path):
    with storage.staged(path) as partial:
        partial.symlink_to("/dev/full")
        partial.write_bytes(b"x" * 100)


def test_a_full_disk_leaves_no_file_and_names_the_path(tmp_path):
    path = f"{tmp_path}/file.bin"

    with pytest.raises(OSError, match=r"No space left on device.*file\.bin"):
        write_to_a_full_disk(path)

    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(root):
    path = storage.join(root, "absent.bin")

    for read in (storage.size, storage.read_bytes, storage.open_input):
        with pytest.raises(FileNotFoundError, match=r"absent\.bin"):
            read(path)


def test_a_store_that_nobody_knows_is_an_os_error_with_the_path():
    with pytest.raises(OSError, match=r"nosuchstore://bucket/a") as caught:
        storage.read_bytes("nosuchstore://bucket/a")

    assert caught.value.errno == errno.ENOTSUP


def test_removing_twice_is_no_error(root):
    storage.publish(storage.join(root, "parts", "a"), b"")
    storage.publish(storage.join(root, "file"), b"")

    for _ in range(2):
        storage.remove(storage.join(root, "file"))
        storage.remove_folder(storage.join(root, "parts"))

    assert storage.list_files(root) == []
    assert storage.list_folders(root) == []


def test_appending_adds_to_the_end(root):
    path = storage.join(root, "deep", "journal.jsonl")

    storage.append(path, b"one\n")
    storage.append(path, b"two\n")

    assert storage.read_bytes(path) == b"one\ntwo\n"


def test_published_files_obey_the_umask(tmp_path):
    storage.publish(f"{tmp_path}/file", b"")
    Path(tmp_path, "plain").touch()

    assert Path(tmp_path, "file").stat().st_mode == Path(tmp_path, "plain").stat().st_mode


def test_a_signal_while_a_file_is_begun_leaves_none(tmp_path, monkeypatch):
    touch = Path.touch

    def touched(path: Path) -> None:
        touch(path)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "touch", touched)
    with pytest.raises(KeyboardInterrupt):
        storage.publish(f"{tmp_path}/file", b"")

    assert list(tmp_path.iterdir()) == []


def save_weights(path):
    with storage.staged(path) as partial:
        save_file({"w": torch.zeros(1 << 16)}, partial)


def test_a_disk_that_is_full_for_a_library_of_its_own_errors_is_told_as_one(tmp_path):
    path = f"{tmp_path}/model.safetensors"

    with files_of(1 << 10), pytest.raises(OSError, match=r"File too large: .*/model\.safetensors"):
        save_weights(path)

    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_of_this_machine_is_not_taken_for_the_store(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    with (
        files_of(1 << 10),
        pytest.raises(OSError, match=rf"File too large: '{tmp_path}/capfilt-.*, for memory://bucket/w'"),
    ):
        save_weights("memory://bucket/w")


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_a_file_that_the_block_replaces_obeys_the_umask_too(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with storage.staged(str(tmp_path / "model.safetensors")) as partial:
            save_file({"w": torch.zeros(1)}, partial)
    finally:
        os.umask(before)

    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == mode


def test_a_store_that_does_not_answer_is_not_taken_for_one_without_the_file(monkeypatch):
    """What is taken for absent is made anew: settings, plans, commits."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("503 Slow Down")

    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.info", fail)
    monkeypatch.setattr("capfilt.retries.PATIENCE", 0.0)

    with pytest.raises(OSError, match=r"503 Slow Down.*memory://run/run\.yaml"):
        storage.exists("memory://run/run.yaml")


def test_a_sweep_takes_files_in_the_making_and_nothing_else(tmp_path):
    ours = [f".{'a1' * 16}.partial", f"deep/er/.{'b2' * 16}.partial"]
    others = ["a.parquet", ".hidden", ".x.partial", f"{'a1' * 16}.partial"]
    for name in ours + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"half")

    storage.sweep(str(tmp_path), deep=False)
    assert (tmp_path / ours[1]).exists()
    storage.sweep(str(tmp_path))

    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)
    storage.sweep(f"{tmp_path}/nothing")
    storage.sweep("memory://nothing")


def test_a_file_has_another_version_after_each_writing(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    first = storage.version(str(path))
    assert storage.version(str(path)) == first

    path.write_bytes(b"2")
    os.utime(path, ns=(0, 0))
    second = storage.version(str(path))
    os.utime(path, ns=(0, 0))

    assert first != second
    assert storage.version(str(path)) != second


def test_a_store_that_tells_no_version_has_none():
    storage.publish("memory://versions/a", b"1")

    assert storage.version("memory://versions/a") == ""


def test_the_version_of_no_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        storage.version(str(tmp_path / "gone"))
