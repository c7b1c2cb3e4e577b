"""Checkpoints: a folder with config.json, model.safetensors and vocab.txt; published files are read too.

Nothing is unpickled: .pth files are loaded as tensors only.
"""

import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from capfilt.errors import CheckpointError
from capfilt.med.config import MEDConfig
from capfilt.med.model import INITIAL_TEMPERATURE, MED
from capfilt.med.published import fit_positions, from_published, infer_config
from capfilt.med.tokens import Tokens
from capfilt.storage import publish, staged

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
VOCABULARY = "vocab.txt"

# What torch.load was seen to raise on damaged files: its unpickler stumbles over its own stack and memo.
DAMAGE = (
    *(AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.UnpicklingError, struct.error),
)


class Checkpoint(NamedTuple):
    """A model and the tokenizer it was trained with."""

    model: MED
    tokens: Tokens


def save(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint folder that load reads back to the same bits. config.json is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)  # so that a checkpoint half written over is none
    (folder / VOCABULARY).write_text("\n".join(checkpoint.tokens.vocabulary) + "\n", encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    with staged(str(folder / WEIGHTS)) as partial:
        save_file(state, partial, metadata={"format": "pt"})
    sizes = {"model_type": "med", **checkpoint.model.config.model_dump()}
    publish(str(folder / CONFIG), (json.dumps(sizes, indent=2) + "\n").encode())


def load(path: Path, image_size: int | None = None) -> Checkpoint:
    """Read a checkpoint folder, a transformers BLIP folder, or an original .pth file with vocab.txt beside it.

    Args:
        path: the folder or file.
        image_size: pixels; when it is not the checkpoint's own, the position table is interpolated.

    Raises:
        CheckpointError: nothing there, not a BLIP checkpoint, or tensors that do not fit; the message
            lists what is missing or left over.
    """
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; capfilt finetune writes one, or give a BLIP .pth or folder")
    if path.is_dir():
        values = _json(path / CONFIG)
        if values.get("model_type") == "med":
            return _load_own(path, values, image_size)
        state, heads = _load_transformers(path, values)
        vocabulary = path / VOCABULARY
    else:
        state, heads = _load_tensors(path), None
        vocabulary = path.with_name(VOCABULARY)
    ours = from_published(state, str(path))
    if path.is_dir() and "itm_head.weight" in ours:
        # transformers leaves the temperature out, which only training reads.
        ours.setdefault("temperature", torch.tensor(INITIAL_TEMPERATURE))
    try:
        config = infer_config(ours, image_size, heads)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{path}: its tensors do not tell the sizes of a BLIP model: {error}") from None
    return _build(config, ours, Tokens(vocabulary), str(path))


def require(checkpoint: Checkpoint, role: str, where: str) -> Checkpoint:
    """Return the checkpoint if it holds a role, "captioner" or "filter".

    Raises:
        CheckpointError: it does not.
    """
    config = checkpoint.model.config
    if not (config.decoder if role == "captioner" else config.encoder):
        other, part = ("filter", "no decoder") if role == "captioner" else ("captioner", "no encoder and no ITM head")
        raise CheckpointError(f"{where}: has {part}; it can serve as {other}, not as {role}")
    return checkpoint


def checkpoint_hash(path: Path) -> str:
    """Return what names a checkpoint in the ledger: a hash of the files that load reads, wherever they lie."""
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}; capfilt finetune writes one, or give a BLIP .pth or folder")
    folder = path.is_dir()
    files = [_weights(path), path / VOCABULARY, path / CONFIG] if folder else [path, path.with_name(VOCABULARY)]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{path}: holds no {file.name}; a checkpoint has weights, config.json and vocab.txt")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _load_own(folder: Path, values: dict[str, object], image_size: int | None) -> Checkpoint:
    try:
        config = MEDConfig.model_validate({key: value for key, value in values.items() if key != "model_type"})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise CheckpointError(f"{folder / CONFIG}: {key}: {problem['msg']}; it is not this release's layout") from None
    if image_size:
        config = config.model_copy(update={"vision": config.vision.model_copy(update={"image_size": image_size})})
    state = {name: tensor.float() for name, tensor in _load_tensors(folder / WEIGHTS).items()}
    return _build(config, state, Tokens(folder / VOCABULARY), str(folder))


def _load_transformers(folder: Path, values: dict[str, object]) -> tuple[dict[str, Tensor], tuple[int, int]]:
    vision, text = values.get("vision_config"), values.get("text_config")
    if values.get("model_type") != "blip" or not isinstance(vision, dict) or not isinstance(text, dict):
        raise CheckpointError(f"{folder}: config.json is of model type {values.get('model_type')}; med or blip is read")
    # The library leaves out sizes that have its own defaults, 12 heads for both halves of the released models.
    return _load_tensors(_weights(folder)), (vision.get("num_attention_heads", 12), text.get("num_attention_heads", 12))


def _weights(folder: Path) -> Path:
    files = [folder / WEIGHTS, folder / "pytorch_model.bin"]
    return next((file for file in files if file.is_file()), files[0])


def _load_tensors(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{file}: is not there; copy the checkpoint's weights again") from None
    except pickle.UnpicklingError:
        # torch's own message tells how to run what the file holds.
        raise CheckpointError(
            f"{file}: holds something else than tensors, which is never unpickled; save its state dict alone"
        ) from None
    except (SafetensorError, *DAMAGE) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{file}: cannot be read as tensors ({reason}); fetch it again") from None
    state = state.get("model", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{file}: holds no state dict; a BLIP .pth has one, under the key model")
    return state


def _build(config: MEDConfig, state: dict[str, Tensor], tokens: Tokens, where: str) -> Checkpoint:
    if len(tokens) != config.text.vocabulary:
        raise CheckpointError(
            f"{where}: vocab.txt has {len(tokens)} words with [DEC] and [ENC], the weights {config.text.vocabulary}"
        )
    model = MED(config)
    state = fit_positions(state, config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is left over" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} is {found[name]}, not {expected[name]}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    if problems:
        listing = "; ".join(sorted(problems)[:5])
        raise CheckpointError(f"{where}: {len(problems)} tensors do not fit ({listing})")
    model.load_state_dict(state)
    return Checkpoint(model.eval(), tokens)


def _json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent}: holds no config.json; it is not a checkpoint folder") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: is no JSON object; copy the checkpoint again")
    return values
