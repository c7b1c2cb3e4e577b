"""A checkpoint is read from an object store as from a disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fsspec import filesystem
from models import small_checkpoint

from capfilt.errors import CheckpointError
from capfilt.med.checkpoints import checkpoint_hash, load, save
from capfilt.med.fetch import fetch


@pytest.fixture
def folder(tmp_path) -> Path:
    save(small_checkpoint(tmp_path / "words"), tmp_path / "model")
    return tmp_path / "model"


def test_a_path_is_left_where_it_is(folder):
    assert fetch(str(folder)) == folder
    assert fetch("relative/model") == Path("relative/model")


def test_a_folder_of_a_store_is_fetched_once(folder):
    filesystem("memory").put(str(folder), "/store/model", recursive=True)
    found = fetch("memory://store/model")
    assert checkpoint_hash(found) == checkpoint_hash(folder)
    assert load(found).model.config == load(folder).model.config
    filesystem("memory").rm("/store/model", recursive=True)
    assert fetch("memory://store/model") == found


def test_a_file_of_a_store_comes_with_its_vocabulary(folder):
    store = filesystem("memory")
    store.pipe("/files/model.pth", b"weights")
    store.put(str(folder / "vocab.txt"), "/files/vocab.txt")
    found = fetch("memory://files/model.pth")
    assert (found.name, found.read_bytes()) == ("model.pth", b"weights")
    assert found.with_name("vocab.txt").read_bytes() == (folder / "vocab.txt").read_bytes()


def test_a_file_of_a_store_comes_with_the_tokenizer_of_transformers(folder):
    filesystem("memory").pipe({"/saved/model.pth": b"weights", "/saved/tokenizer.json": b"words"})
    assert fetch("memory://saved/model.pth").with_name("tokenizer.json").read_bytes() == b"words"


def test_what_is_not_there_is_named():
    with pytest.raises(CheckpointError, match="no checkpoint at memory://nowhere/model; capfilt finetune"):
        fetch("memory://nowhere/model")


def test_what_was_fetched_goes_with_the_process():
    code = (
        "from fsspec import filesystem\nfrom capfilt.med.fetch import fetch\n"
        "filesystem('memory').pipe('/a/b.pth', b'x')\nprint(fetch('memory://a/b.pth'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert not Path(done.stdout.strip()).parent.exists()


def test_a_disk_that_is_full_is_named_and_keeps_nothing(tmp_path):
    """Here by a limit on the size of a file, in a process of its own."""
    code = (
        "import resource, signal\nfrom fsspec import filesystem\nfrom capfilt.med.fetch import fetch\n"
        "filesystem('memory').pipe('/a/b.pth', b'x' * 2_000_000)\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))\n"
        "from pathlib import Path\nimport tempfile\n"
        "try:\n    fetch('memory://a/b.pth')\n"
        "except OSError as error:\n    print(error.filename, list(Path(tempfile.gettempdir()).glob('capfilt-*')))\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment)
    file, left = done.stdout.split()
    assert (Path(file).parent.parent, Path(file).name, left) == (tmp_path, "b.pth", "[]")
