"""The weights that pre-training starts from: a ViT's for the vision tower, a BERT's for the text stack, or random ones.

Source: BLIP, arXiv 2201.12086, section 4.1, and the original's code.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from capfilt.config.initial import InitialWeights
from capfilt.config.model import ModelSettings
from capfilt.errors import CheckpointError
from capfilt.med.bert_weights import read_bert
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.fetch import fetch
from capfilt.med.model import BERT_WIDTH, MED
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vit_weights import read_vit
from capfilt.med.weights import misfits
from capfilt.storage import local_path

logger = logging.getLogger(__name__)

CROSS_ATTENTION = r"text\.blocks\.\d+\.cross_attn\..+"
HEAD = r"text\.head\..+"
WORDS, BIAS = "text.embeddings.words.weight", "text.head.bias"


class Taken(NamedTuple):
    """Names of tensors: those of MED taken from a source of weights or drawn, and those of the source left out."""

    taken: list[str]
    drawn: list[str]
    left_out: list[str]


def start(settings: ModelSettings, initial: InitialWeights, seed: int) -> Checkpoint:
    """Return a model of the given sizes, with the given weights and, where none are given, random ones.

    Raises:
        CheckpointError: weights cannot be read or do not fit the sizes; the message says what to set.
    """
    with _fetched("model.vocabulary", settings.vocabulary) as vocabulary:
        tokenizer = Tokenizer(vocabulary)
    model = MED(settings.sizes(len(tokenizer))).initialise(seed)
    if initial.vision:
        with _fetched("initial.vision", initial.vision) as vision:
            _tell(initial.vision, take_vision(model, str(vision)))
    if initial.text:
        with _fetched("initial.text", initial.text) as text:
            _tell(initial.text, take_text(model, tokenizer, str(text)))
    return Checkpoint(model, tokenizer)


@contextmanager
def _fetched(key: str, place: str) -> Iterator[Path]:
    """Yield where what a key names lies on this machine: a path, or the name of a timm model, stays as it is.

    An error of the block names the URL, not the folder that it was fetched to.
    """
    try:
        here = fetch(place)
    except CheckpointError:
        raise CheckpointError(f"{key}: nothing is at {place}; give the path or URL of what is there") from None
    try:
        yield here
    except CheckpointError as error:
        if local_path(place) is not None:
            raise
        raise CheckpointError(str(error).replace(str(here), place.rstrip("/"))) from None


def take_vision(model: MED, source: str) -> Taken:
    """Fill the vision tower with a ViT's weights, all of them; source and errors as in read_vit."""
    weights, left_out = read_vit(source, model.config.vision)
    return _take(model, source, "vision.", weights, left_out)


def take_text(model: MED, tokenizer: Tokenizer, source: str) -> Taken:
    """Fill the text stack with a BERT's weights; source and errors as in read_bert.

    What BERT lacks keeps its random weights, at BERT's deviation of 0.02 as in the original: [DEC] and [ENC],
    cross-attention, and the language head where the source holds none.
    """
    weights, left_out = read_bert(Path(source), model.config.text, tokenizer)
    drawn = CROSS_ATTENTION if any(re.fullmatch(HEAD, name) for name in weights) else f"{CROSS_ATTENTION}|{HEAD}"
    fresh = {name: _at_berts_deviation(tensor) for name, tensor in model.state_dict().items()}
    for name in {WORDS, BIAS} & weights.keys():
        words = len(tokenizer.vocabulary)
        if weights[name].shape == (words, *fresh[name].shape[1:]):  # another shape is reported as a misfit
            weights[name] = torch.cat([weights[name], fresh[name][words:]])
    missing = {name: fresh[name] for name in fresh.keys() - weights.keys() if re.fullmatch(drawn, name)}
    result = _take(model, source, "text.", weights, left_out, missing)
    return result._replace(drawn=[f"[DEC] and [ENC] of {WORDS}", *result.drawn])


def _at_berts_deviation(tensor: Tensor) -> Tensor:
    # MED.initialise draws with a deviation that grows as the number of inputs falls below BERT's width.
    return tensor * (tensor.shape[1] / BERT_WIDTH) ** 0.5 if tensor.ndim == 2 else tensor


def _take(
    model: MED,
    source: str,
    part: str,
    weights: dict[str, Tensor],
    left_out: list[str],
    drawn: dict[str, Tensor] | None = None,
) -> Taken:
    """Load weights into a part of a model, with random ones for what they lack."""
    drawn = drawn or {}
    expected = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(part)}
    problems = misfits(expected, weights | drawn)
    if problems:
        listing = "; ".join(problems[:5])
        raise CheckpointError(f"{source}: tensors that do not fit {part.strip('.')}: {len(problems)} ({listing})")
    model.load_state_dict(weights | drawn, strict=False)
    return Taken(sorted(weights), sorted(drawn), sorted(left_out))


def _tell(source: str, result: Taken) -> None:
    taken, drawn, left_out = map(len, result)
    logger.warning(
        "%s: %d tensors taken, %d drawn at random (%s), %d left out (%s)",
        *(source, taken, drawn, _first(result.drawn), left_out, _first(result.left_out)),
    )


def _first(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 3 else [*names[:3], "..."]) or "none"
