"""Checkpoints: a folder with config.json, model.safetensors and vocab.txt; published files are read too."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from capfilt.config.sizes import MEDConfig, NLVR2Sizes, Sizes, TextConfig, VisionConfig, VQASizes
from capfilt.errors import CheckpointError
from capfilt.med.fetch import require_place
from capfilt.med.model import INITIAL_TEMPERATURE, MED
from capfilt.med.nlvr2 import NLVR2
from capfilt.med.published import INFER, HeadCounts, fit_positions, from_published, kind_of
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vision import NORM_EPS
from capfilt.med.vqa import VQA
from capfilt.med.weights import CONFIG, VOCABULARY, WEIGHTS, load_json, load_tensors, misfits, weights_file, words_file
from capfilt.storage import publish, staged

# BLIP's own value, and transformers' default, which is what folders converted from BLIP's files state.
VISION_EPS = (NORM_EPS, 1e-5)


class Checkpoint(NamedTuple):
    """A model and the tokenizer it was trained with."""

    model: MED
    tokenizer: Tokenizer


class VQACheckpoint(NamedTuple):
    """A model that answers questions, and its tokenizer."""

    model: VQA
    tokenizer: Tokenizer


class NLVR2Checkpoint(NamedTuple):
    """A model that judges sentences about two images, and its tokenizer."""

    model: NLVR2
    tokenizer: Tokenizer


AnyCheckpoint = Checkpoint | VQACheckpoint | NLVR2Checkpoint
SIZES: dict[str, type[Sizes]] = {"med": MEDConfig, "vqa": VQASizes, "nlvr2": NLVR2Sizes}
MEANINGS = {
    Checkpoint: "a captioning, retrieval or pre-training model",
    VQACheckpoint: "a VQA model",
    NLVR2Checkpoint: "an NLVR2 model",
}
C = TypeVar("C", Checkpoint, VQACheckpoint, NLVR2Checkpoint)
M = TypeVar("M", bound=nn.Module)


def save(checkpoint: AnyCheckpoint, folder: Path) -> None:
    """Write a checkpoint folder that load reads back to the same bits. config.json is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)  # so that a half-overwritten checkpoint does not pass for one
    (folder / VOCABULARY).write_text("\n".join(checkpoint.tokenizer.vocabulary) + "\n", encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in checkpoint.model.state_dict().items()}
    with staged(str(folder / WEIGHTS)) as partial:
        save_file(state, partial, metadata={"format": "pt"})
    config: Sizes = checkpoint.model.config
    kind = next(name for name, sizes in SIZES.items() if type(config) is sizes)
    sizes = {"model_type": kind, **config.model_dump()}
    publish(str(folder / CONFIG), (json.dumps(sizes, indent=2) + "\n").encode())


def load(path: Path, image_size: int | None = None) -> Checkpoint:
    """Read a MED checkpoint: arguments and errors as in load_any."""
    return _only(Checkpoint, path, image_size)


def load_vqa(path: Path, image_size: int | None = None) -> VQACheckpoint:
    """Read a VQA checkpoint: arguments and errors as in load_any."""
    return _only(VQACheckpoint, path, image_size)


def load_nlvr2(path: Path, image_size: int | None = None) -> NLVR2Checkpoint:
    """Read an NLVR2 checkpoint: arguments and errors as in load_any."""
    return _only(NLVR2Checkpoint, path, image_size)


def load_any(path: Path, image_size: int | None = None, heads: HeadCounts = (None, None)) -> AnyCheckpoint:
    """Read a checkpoint folder, a transformers BLIP folder, or an original .pth file with its words beside it.

    Args:
        path: the folder or file.
        image_size: pixels; when it is not the checkpoint's own, the position table is interpolated.
        heads: attention heads, for a .pth file of another width than the published ones; a folder states its own.

    Raises:
        CheckpointError: nothing is there, it is not a BLIP checkpoint, or tensors do not fit; the message
            lists what is missing or left over.
    """
    require_place(path)
    if path.name == WEIGHTS and path.with_name(CONFIG).is_file():  # tensors alone do not give all sizes
        raise CheckpointError(f"{path}: holds a checkpoint's weights alone; give its folder, {path.parent}")
    if not path.is_dir():
        return _published(load_tensors(path), heads, path, image_size)
    if any(heads):
        raise CheckpointError(f"{path}: its config.json states the attention heads; leave them out")
    values = load_json(path / CONFIG)
    if str(values.get("model_type")) in SIZES:
        return _load_own(path, values, image_size)
    state, heads = _load_transformers(path, values)
    return _published(state, heads, path, image_size)


def require(checkpoint: Checkpoint, role: str, where: str) -> Checkpoint:
    """Return the checkpoint if it can serve in a role, "captioner" or "filter".

    Raises:
        CheckpointError: it does not.
    """
    config = checkpoint.model.config
    if not (config.decoder if role == "captioner" else config.encoder):
        other, part = ("filter", "no decoder") if role == "captioner" else ("captioner", "no encoder and no ITM head")
        raise CheckpointError(f"{where}: has {part}; it can serve as {other}, not as {role}")
    return checkpoint


def checkpoint_hash(path: Path) -> str:
    """Return the hash that names a checkpoint in the ledger: of the files that load reads, wherever they lie."""
    require_place(path)
    folder = path.is_dir()
    files = [weights_file(path), words_file(path), path / CONFIG] if folder else [path, words_file(path.parent)]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            remedy = "a checkpoint has weights, config.json and vocab.txt"
            if not folder:
                remedy = f"put that of bert-base-uncased, or a BlipProcessor's tokenizer.json, beside {path.name}"
            raise CheckpointError(f"{file.parent}: holds no {file.name}; {remedy}")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _only(kind: type[C], path: Path, image_size: int | None) -> C:
    found = load_any(path, image_size)
    if not isinstance(found, kind):
        raise CheckpointError(f"{path}: holds {MEANINGS[type(found)]}; {MEANINGS[kind]} is asked for")
    return found


def _load_own(folder: Path, values: dict[str, object], image_size: int | None) -> AnyCheckpoint:
    kind = SIZES[str(values["model_type"])]
    try:
        config = kind.model_validate({key: value for key, value in values.items() if key != "model_type"})
    except ValidationError as error:
        raise CheckpointError(f"{folder / CONFIG}: {_reason(error)}; it is not this release's layout") from None
    if image_size:
        config = _at(image_size, config, folder)
    state = {name: tensor.float() for name, tensor in load_tensors(folder / WEIGHTS).items()}
    return _build(config, state, folder)


def _at(image_size: int, config: Sizes, folder: Path) -> Sizes:
    try:
        vision = VisionConfig.model_validate({**config.vision.model_dump(), "image_size": image_size})
    except ValidationError as error:
        raise CheckpointError(f"{folder}: {_reason(error)}; give another image size") from None
    return config.model_copy(update={"vision": vision})


def _reason(error: ValidationError) -> str:
    problem = error.errors()[0]
    return ": ".join([*map(str, problem["loc"]), problem["msg"].removeprefix("Value error, ")])


def _published(state: dict[str, Tensor], heads: HeadCounts, path: Path, image_size: int | None) -> AnyCheckpoint:
    kind = kind_of(state)
    ours = from_published(state, str(path), kind)
    if path.is_dir() and "itm_head.weight" in ours:
        # transformers leaves out the temperature, which only training reads.
        ours.setdefault("temperature", torch.tensor(INITIAL_TEMPERATURE))
    try:
        config = INFER[kind](ours, image_size, heads)
    except ValidationError as error:
        raise CheckpointError(f"{path}: {_reason(error)}; give sizes that fit its tensors") from None
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"{path}: its tensors do not give the sizes of a BLIP model: {error}") from None
    return _build(config, ours, path)


def _load_transformers(folder: Path, values: dict[str, object]) -> tuple[dict[str, Tensor], HeadCounts]:
    vision, text = values.get("vision_config"), values.get("text_config")
    if values.get("model_type") != "blip" or not isinstance(vision, dict) or not isinstance(text, dict):
        raise CheckpointError(f"{folder}: config.json is of model type {values.get('model_type')}; med or blip is read")
    for part, sizes, epsilons in (
        ("vision_config", vision, VISION_EPS),
        ("text_config", text, (TextConfig().norm_eps,)),
    ):
        for key, known in (("hidden_act", ("gelu",)), ("layer_norm_eps", epsilons)):
            if sizes.get(key, known[0]) not in known:
                raise CheckpointError(
                    f"{folder}: config.json has {part}.{key}: {sizes[key]}, MED has {known[0]}; give another model"
                )
    # Some transformers releases omit values that equal their own defaults, which are not BLIP's for the text half.
    return load_tensors(weights_file(folder)), (
        vision.get("num_attention_heads", 12),
        text.get("num_attention_heads", 8),
    )


def _build(config: Sizes, state: dict[str, Tensor], path: Path) -> AnyCheckpoint:
    where, words = str(path), words_file(path if path.is_dir() else path.parent)
    tokenizer = Tokenizer(words)
    if len(tokenizer) != config.text.vocabulary:
        raise CheckpointError(
            f"{where}: {words.name} has {len(tokenizer)} words with [DEC] and [ENC], "
            f"the weights {config.text.vocabulary}"
        )
    deepest = max(config.vision.depth, config.text.depth)
    if deepest > len(state):  # merely constructing so many blocks would take forever
        raise CheckpointError(f"{where}: has {len(state)} tensors, too few for {deepest} blocks")
    state = fit_positions(state, config)
    if isinstance(config, VQASizes):
        return VQACheckpoint(_fill(lambda: VQA(config), state, where), tokenizer)
    if isinstance(config, NLVR2Sizes):
        return NLVR2Checkpoint(_fill(lambda: NLVR2(config), state, where), tokenizer)
    if isinstance(config, MEDConfig):
        return Checkpoint(_fill(lambda: MED(config), state, where), tokenizer)
    raise TypeError(f"{type(config).__name__} belongs to no model")


def _fill(build: Callable[[], M], state: dict[str, Tensor], where: str) -> M:
    try:
        with torch.device("meta"):  # sizes that do not match the tensors may be beyond any memory
            expected = build().state_dict()
    except (RuntimeError, TypeError) as error:  # or more than torch can count
        raise CheckpointError(f"{where}: its sizes are beyond any tensor; copy its config.json again") from error
    if problems := misfits(expected, state):
        raise CheckpointError(f"{where}: tensors that do not fit: {len(problems)} ({'; '.join(problems[:5])})")
    model = build()
    model.load_state_dict(state)
    return model.eval()
