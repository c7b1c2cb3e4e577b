"""Converting a checkpoint from one layout into another, and describing one in a few words."""

from pathlib import Path

import torch

from capfilt.errors import CheckpointError
from capfilt.med.checkpoints import MEANINGS, AnyCheckpoint, Checkpoint, checkpoint_hash, load_any, save
from capfilt.med.momentum import MOMENTUM
from capfilt.med.published import HeadCounts
from capfilt.med.transformers_layout import LAYOUTS, save_transformers
from capfilt.med.weights import count_parameters, load_tensors


def convert(
    source: Path, target: Path, to: str, image_size: int | None = None, heads: HeadCounts = (None, None)
) -> str:
    """Write a checkpoint in another layout, and return a one-line description of what was written.

    Args:
        source: what load_any reads.
        target: a folder that is not there, or empty.
        to: "med", capfilt's own layout, or one of transformers_layout.LAYOUTS.
        image_size: pixels; when it is not the source's own, the position table is interpolated.
        heads: attention heads, for a .pth file of another width than the published ones.

    Raises:
        CheckpointError: the source is no checkpoint or lacks what the layout needs, or the target is not empty.
    """
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise CheckpointError(f"{target}: exists already; give a new or an empty folder")
    checkpoint = load_any(source, image_size, heads)
    written = roles(checkpoint)
    if to == "med":
        save(checkpoint, target)
    elif isinstance(checkpoint, Checkpoint):
        save_transformers(checkpoint, target, to, str(source))
        written = [LAYOUTS[to].role]
    else:
        architecture, meaning = LAYOUTS[to].architecture, MEANINGS[type(checkpoint)]
        raise CheckpointError(f"{source}: holds {meaning}, which {architecture} cannot be; --to med is possible")
    vision, text = checkpoint.model.config.vision, checkpoint.model.config.text
    left = "; its momentum copies and queues are not converted: to continue with them, tune a filter from the source"
    return (
        f"{target}: {' and '.join(written)} as {to}, {vision.image_size} pixels, "
        f"{vision.heads} head{'s' * (vision.heads > 1)} in the vision tower and {text.heads} in the text stack"
        f"{left if _has_momentum(source) else ''}"
    )


def _has_momentum(source: Path) -> bool:
    """Return whether a checkpoint has momentum copies: fine-tuning a filter uses them, and no layout holds them."""
    if source.is_dir():
        return (source / MOMENTUM).is_file()
    with torch.device("meta"):  # only names are needed
        return "image_queue" in load_tensors(source)


def describe(path: Path) -> dict[str, object]:
    """Return what a checkpoint can do, how large it is, and the hash that names it in ledgers."""
    checkpoint = load_any(path)
    sizes = checkpoint.model.config
    return {
        "path": str(path),
        "hash": checkpoint_hash(path),
        "roles": roles(checkpoint),
        "parameters": count_parameters(checkpoint.model),
        **sizes.model_dump(),
    }


def roles(checkpoint: AnyCheckpoint) -> list[str]:
    """Return what a checkpoint can serve as."""
    if not isinstance(checkpoint, Checkpoint):
        return [MEANINGS[type(checkpoint)].removeprefix("a ").removeprefix("an ")]
    config = checkpoint.model.config
    return [role for role, held in (("captioner", config.decoder), ("filter", config.encoder)) if held]
