import os
from pathlib import Path

import pytest

from capfilt.storage.placing import mode_of_new, place


def test_asking_for_the_mode_of_a_new_file_leaves_none(tmp_path):
    """Else what was never written would be published, as an empty file."""
    (tmp_path / "plain").touch()

    assert mode_of_new(tmp_path / "new") == (tmp_path / "plain").stat().st_mode
    assert not (tmp_path / "new").exists()


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_anybody_goes_on(tmp_path, monkeypatch):
    """Else a power cut could leave a name without its content, or a record of a file that is not there."""
    partial, path = tmp_path / "0.partial", tmp_path / "ledger.parquet"
    partial.write_bytes(b"rows")
    synced = []

    def fsync(handle: int) -> None:
        synced.append((os.fstat(handle).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    place(partial, path, 0o600)

    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]
    assert path.read_bytes() == b"rows"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_store_that_refuses_to_set_even_the_mode_that_a_file_has_is_not_asked_to(tmp_path, monkeypatch):
    def chmod(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    partial = tmp_path / "0.partial"
    partial.write_bytes(b"rows")
    monkeypatch.setattr(Path, "chmod", chmod)
    place(partial, tmp_path / "ledger.parquet", partial.stat().st_mode)

    assert (tmp_path / "ledger.parquet").read_bytes() == b"rows"


def test_no_file_stays_open(tmp_path):
    """A run publishes hundreds of thousands."""
    (tmp_path / "0.partial").write_bytes(b"rows")

    place(tmp_path / "0.partial", tmp_path / "ledger.parquet", 0o600)

    still_open = {handle.resolve() for handle in Path("/proc/self/fd").iterdir()}
    assert not still_open & {tmp_path, tmp_path / "ledger.parquet"}


def test_a_file_that_the_disk_does_not_take_gets_no_name(tmp_path, monkeypatch):
    def fsync(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "0.partial").write_bytes(b"rows")
    with pytest.raises(OSError, match="Input/output error"):
        place(tmp_path / "0.partial", tmp_path / "ledger.parquet", 0o600)

    assert not (tmp_path / "ledger.parquet").exists()
