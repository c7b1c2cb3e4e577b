"""Checkpoints on an object store: fetched to this machine before they are read."""

import atexit
import shutil
from functools import cache
from pathlib import Path

from capfilt.errors import CheckpointError
from capfilt.med.weights import CONFIG, TOKENIZER, VOCABULARY
from capfilt.storage import exists, join, list_files, local_path, open_input, staged
from capfilt.storage.scratch import Scratch

_fetched: list[Scratch] = []  # folders that are still there


@cache
def fetch(place: str) -> Path:
    """Return where a checkpoint lies on this machine. One at a URL is fetched once, until drop_fetched removes it.

    Args:
        place: path or URL of a checkpoint folder, or of a file with vocab.txt or tokenizer.json beside it.

    Raises:
        CheckpointError: nothing is at the URL. A path is not checked here, but by what reads it.
    """
    if (local := local_path(place)) is not None:
        return local
    parent, _, own = place.rstrip("/").rpartition("/")
    names = list_files(place)
    if not names and not exists(place):
        raise absent(place)
    scratch = Scratch()
    _fetched.append(scratch)
    folder = Path(scratch.name)
    try:
        if names in ([], [own]):  # a file: stores list it as its own only content
            for name in filter(lambda name: exists(join(parent, name)), (own, VOCABULARY, TOKENIZER)):
                _copy(join(parent, name), folder / name)
            return folder / own
        for name in names:
            _copy(join(place, name), folder / name)
        return folder
    except BaseException:  # else each attempt leaves its gigabytes, and most attempts fail because the disk is full
        _fetched.remove(scratch)
        scratch.cleanup()
        raise


@atexit.register
def drop_fetched() -> None:
    """Remove all that was fetched. Whoever has loaded it calls this: it takes gigabytes, and Ray kills its workers."""
    fetch.cache_clear()
    while _fetched:
        _fetched.pop().cleanup()


def require_place(path: Path) -> None:
    """Raise CheckpointError if nothing is there, or the folder of a training run instead of the checkpoint in it."""
    if not path.exists():
        raise absent(path)
    inner = path / "checkpoint"
    if (inner / CONFIG).is_file() and not (path / CONFIG).exists():
        raise CheckpointError(f"{path}: is the folder of a training run; its checkpoint is {inner}")


def absent(place: str | Path) -> CheckpointError:
    """Return the error for a place without a checkpoint."""
    others = "capfilt pretrain one to start from, or give a BLIP .pth or folder"
    return CheckpointError(f"no checkpoint at {place}; capfilt finetune writes one, {others}")


def _copy(url: str, file: Path) -> None:
    with open_input(url) as source, staged(str(file)) as partial, partial.open("wb") as target:
        shutil.copyfileobj(source, target, 16 << 20)
