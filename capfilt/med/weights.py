"""Reading the files of a checkpoint: tensors and JSON. Nothing is unpickled: .pth files are loaded as tensors only.

Under `torch.device("meta")` only the headers are read: tensors then have names and shapes, but no values. So dry runs
can try out whatever is made of a checkpoint without reading its gigabytes.
"""

import errno
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from capfilt.errors import CheckpointError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
VOCABULARY = "vocab.txt"
TOKENIZER = "tokenizer.json"  # transformers 5 saves the words here, and no vocab.txt

# What torch.load was seen to raise on damaged files: its unpickler stumbles over its own stack and memo.
DAMAGE = (
    *(AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
)
OUTAGE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)  # of a disk or a mount; damaged files raise others


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Return the state dict that a .safetensors, .bin or .pth file holds; without its values on the meta device.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else or numbers that are not finite.
        OSError: its disk does not answer now, but may later.
    """
    state = _read(file)
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(_is_weight(*item) for item in state.items()):
        raise CheckpointError(f"{file}: holds no state dict; a BLIP .pth has one, under the key model")
    for name, tensor in state.items():
        # A sum shows any of them, in a tenth of the time of isfinite on each number.
        if not (on_meta() or tensor.sum(dtype=torch.float32).isfinite()):
            raise CheckpointError(f"{file}: {name} holds numbers that are not finite; fetch or train it again")
    return state


def _read(file: Path) -> object:
    """Return what a file of tensors holds, or raise as load_tensors does if it cannot be read as one."""
    try:
        return _load_safetensors(file) if file.suffix == ".safetensors" else _load_pth(file)
    except FileNotFoundError:
        if any(file.parent.glob("*.index.json")):
            remedy = "save it by save_pretrained(..., max_shard_size='100GB')"
            raise CheckpointError(f"{file.parent}: has its weights in shards, and one file is read; {remedy}") from None
        raise CheckpointError(f"{file}: is not there; copy the checkpoint's weights again") from None
    except pickle.UnpicklingError:
        # torch's own message explains how to execute what the file holds.
        raise CheckpointError(
            f"{file}: holds something other than tensors, which is never unpickled; save its state dict alone"
        ) from None
    except (SafetensorError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno in OUTAGE:
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{file}: cannot be read as tensors ({reason}); fetch it again") from None


def _load_pth(file: Path) -> object:
    packed = zipfile.is_zipfile(file)
    if packed:
        check_unpacked(file, "save its state dict by torch.save")
    mapped = on_meta() and packed  # the older format cannot be mapped
    return torch.load(file, map_location="meta" if on_meta() else "cpu", mmap=mapped, weights_only=True)


def check_unpacked(file: Path, remedy: str) -> None:
    """Refuse a zip bomb by its directory: what torch and numpy write is not compressed.

    Args:
        file: a zip archive.
        remedy: how to write it without compression, for the message.

    Raises:
        CheckpointError: its members are together larger than the file.
    """
    with zipfile.ZipFile(file) as archive:
        unpacked, size = sum(member.file_size for member in archive.infolist()), file.stat().st_size
    if unpacked > size:
        raise CheckpointError(
            f"{file}: unpacks to {unpacked} bytes, the file has {size}: not read; {remedy}, which does not compress"
        )


def _is_weight(name: object, value: object) -> bool:
    """Return whether a pair is a name and a plain tensor, which can be read as float32."""
    if not (isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided):
        return False
    if value.nbytes > value.untyped_storage().nbytes():  # strides may repeat one number a million times
        return False
    return value.is_meta == on_meta() and not (value.is_quantized or value.is_complex()) and _is_number(value.dtype)


@cache
def _is_number(dtype: torch.dtype) -> bool:
    """Return whether values of a type can be read as float32: not bits and packed numbers, such as uint4."""
    try:
        torch.empty(1, dtype=dtype, device="cpu").float()
    except NotImplementedError:
        return False
    return True


def on_meta() -> bool:
    """Return whether tensors are currently made without values."""
    return torch.get_default_device().type == "meta"


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file; on the meta device by its header alone, all as float32."""
    if not on_meta():
        return load_file(file)
    with safe_open(file, "pt") as tensors:
        names: list[str] = [*tensors.keys()]
        return {name: torch.empty(tensors.get_slice(name).get_shape(), device="meta") for name in names}


def weights_file(folder: Path) -> Path:
    """Return the file with the tensors of a checkpoint folder; its usual path if there is none."""
    files = [folder / WEIGHTS, folder / "pytorch_model.bin"]
    return next((file for file in files if file.is_file()), files[0])


def words_file(folder: Path) -> Path:
    """Return the file with the words of a checkpoint folder; its usual path if there is none."""
    files = [folder / VOCABULARY, folder / TOKENIZER]
    return next((file for file in files if file.is_file()), files[0])


def misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return, in the order of their names, what is wrong with each tensor that does not fit a model."""
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is left over" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} is {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected.keys() & found.keys()
        if expected[name].shape != found[name].shape
    ]
    return sorted(problems)


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def load_json(path: Path) -> dict[str, object]:
    """Return the object in a checkpoint's JSON file.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: holds no config.json; it is not a checkpoint folder") from None
    except (ValueError, RecursionError) as error:  # unreadable bytes or numbers, or brackets nested too deeply
        raise CheckpointError(f"{path}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is not a JSON object; copy the checkpoint again")
    return values
