"""Work for training workers that is done at once; their processes import no model for it."""

from capfilt.errors import ModelError
from capfilt.storage import append


def try_once(folder: str) -> None:
    append(f"{folder}/tried", b"x")


def refuse(folder: str) -> None:
    try_once(folder)
    raise ModelError("run: step 3: the losses are lm nan")


def lose_disk(number: int) -> None:
    raise OSError(number, "the disk is gone", "run/states")
