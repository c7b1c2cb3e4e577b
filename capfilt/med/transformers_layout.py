"""MED as transformers' BLIP: folders for BlipForConditionalGeneration and BlipForImageTextRetrieval.

transformers' defaults are not BLIP's (epsilon of the vision tower's norms, heads of the text stack, label
smoothing, deviation of fresh weights), so all of them are written out. Its image-text retrieval feeds
texts as they are tokenized: the caller has to put [ENC] in place of the first token before ITM.
"""

import json
import re
from itertools import count
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from capfilt.config.sizes import MEDConfig
from capfilt.errors import CheckpointError
from capfilt.med.checkpoints import Checkpoint, require
from capfilt.med.losses import LABEL_SMOOTHING
from capfilt.med.model import BERT_STD
from capfilt.med.published import ATTENTION, NAMES
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vision import MEAN, NORM_EPS, STD
from capfilt.med.weights import CONFIG, VOCABULARY, WEIGHTS
from capfilt.storage import publish, staged

BICUBIC = 3  # as Pillow counts
GROUP = re.compile(r"\((?!\?)([^()]*)\)")  # a capturing group in a row of the table of names


class Layout(NamedTuple):
    """A class of transformers: its name, its text stack, and the role that MED must hold for it."""

    architecture: str
    stack: str
    role: str
    left_out: re.Pattern[str]  # what MED holds for its other role, and the temperature, which only training reads


LAYOUTS = {
    "transformers-captioning": Layout(
        *("BlipForConditionalGeneration", "text_decoder", "captioner"),
        re.compile(r"text\.blocks\.\d+\.encoder_attn\..+|(vision_proj|text_proj|itm_head)\..+|temperature"),
    ),
    "transformers-retrieval": Layout(
        *("BlipForImageTextRetrieval", "text_encoder", "filter"),
        re.compile(r"text\.blocks\.\d+\.decoder_attn\..+|text\.head\..+|temperature"),
    ),
}

# The language head's matrix and bias under their second names, for releases that do not tie them on loading.
_HEAD = "text_decoder.cls.predictions."
TIED = {f"{_HEAD}decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight"}
TIED |= {f"{_HEAD}decoder.bias": f"{_HEAD}bias"}


def save_transformers(checkpoint: Checkpoint, folder: Path, layout: str, where: str) -> None:
    """Write a folder that a class of transformers and its BlipProcessor read. config.json is written last.

    Args:
        checkpoint: a model that holds the role of the class.
        folder: where to write.
        layout: one of LAYOUTS.
        where: what messages call the checkpoint.

    Raises:
        CheckpointError: the model lacks the role, or has a convolutional stem, which transformers lacks.
    """
    target = LAYOUTS[layout]
    model, tokenizer = require(checkpoint, target.role, where)
    if model.config.vision.stem != "patch":
        raise CheckpointError(f"{where}: has stem: {model.config.vision.stem}, which {target.architecture} lacks")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / VOCABULARY).write_text("\n".join(tokenizer.vocabulary) + "\n", encoding="utf-8")
    _write(folder / "tokenizer_config.json", _tokenizer(tokenizer, model.config))
    _write(folder / "preprocessor_config.json", _preprocessor(model.config))
    with staged(str(folder / WEIGHTS)) as partial:
        save_file(to_transformers(model.state_dict(), target), partial, metadata={"format": "pt"})
    _write(folder / CONFIG, _config(model.config, tokenizer, target))


def to_transformers(state: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return the tensors of MED that a layout has, under transformers' names."""
    rows = _backwards(layout.stack)
    theirs = {_look_up(name, rows): t.contiguous() for name, t in state.items() if not layout.left_out.fullmatch(name)}
    return theirs | {name: theirs[other].clone() for name, other in TIED.items() if other in theirs}


def _backwards(stack: str) -> list[tuple[re.Pattern[str], str]]:
    """Return the table of published names read from right to left: patterns of our names, templates of theirs."""
    # visual_encoder is the original's name for what transformers calls vision_model.
    return [_backward(*row, stack) for row in NAMES if not row[0].startswith("visual_encoder")]


def _backward(theirs: str, ours: str, stack: str) -> tuple[re.Pattern[str], str]:
    groups, numbers = GROUP.findall(theirs), count(1)
    pattern = re.sub(r"\\\\(\d)", lambda number: f"({groups[int(number[1]) - 1]})", re.escape(ours))
    template = re.sub(r"\(\?:([^()]*)\)", lambda either: _of_stack(either[1], stack), theirs)
    template = GROUP.sub(lambda _: f"\\{next(numbers)}", template)
    return re.compile(pattern), template.replace(r"\.", ".")


def _of_stack(alternatives: str, stack: str) -> str:
    return next(name for name in alternatives.split("|") if name.startswith(stack))


def _look_up(name: str, rows: list[tuple[re.Pattern[str], str]]) -> str:
    template, match = next((template, match) for pattern, template in rows if (match := pattern.fullmatch(name)))
    theirs = match.expand(template)
    before, attention, part = theirs.partition("attention")
    if not attention:
        return theirs
    infix, here = next(row for row in reversed(ATTENTION) if part.startswith(row[1]))  # the first row matches any part
    return before + attention + infix + part.removeprefix(here)


def _config(sizes: MEDConfig, tokenizer: Tokenizer, layout: Layout) -> dict[str, object]:
    vision, text = sizes.vision, sizes.text
    shared = {"hidden_act": "gelu", "initializer_range": BERT_STD, "projection_dim": sizes.projection}
    return {
        "architectures": [layout.architecture],
        "model_type": "blip",
        "dtype": "float32",
        "image_text_hidden_size": sizes.projection,
        "initializer_range": BERT_STD,
        "projection_dim": sizes.projection,
        "tie_word_embeddings": True,
        "vision_config": {
            **shared,
            "model_type": "blip_vision_model",
            "hidden_size": vision.width,
            "image_size": vision.image_size,
            "intermediate_size": 4 * vision.width,
            "layer_norm_eps": NORM_EPS,
            "num_attention_heads": vision.heads,
            "num_hidden_layers": vision.depth,
            "patch_size": vision.patch_size,
        },
        "text_config": {
            **shared,
            "model_type": "blip_text_model",
            "attention_probs_dropout_prob": text.dropout,
            "bos_token_id": tokenizer.dec,
            "encoder_hidden_size": vision.width,
            "eos_token_id": tokenizer.end,
            "hidden_dropout_prob": text.dropout,
            "hidden_size": text.width,
            "intermediate_size": text.mlp_width,
            "is_decoder": True,  # the retrieval class, too, has cross-attention only with this
            "label_smoothing": LABEL_SMOOTHING,
            "layer_norm_eps": text.norm_eps,
            "max_position_embeddings": text.positions,
            "num_attention_heads": text.heads,
            "num_hidden_layers": text.depth,
            "pad_token_id": tokenizer.pad,
            "sep_token_id": tokenizer.end,
            "tie_word_embeddings": True,
            "vocab_size": text.vocabulary,
        },
    }


def _tokenizer(tokenizer: Tokenizer, sizes: MEDConfig) -> dict[str, object]:
    flags = {"special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
    added = {str(tokenizer.dec): {"content": "[DEC]", **flags}, str(tokenizer.enc): {"content": "[ENC]", **flags}}
    return {
        "tokenizer_class": "BertTokenizer",
        "processor_class": "BlipProcessor",
        "do_lower_case": True,
        "model_max_length": sizes.text.positions,
        "bos_token": "[DEC]",
        "additional_special_tokens": ["[ENC]"],
        "added_tokens_decoder": added,
    }


def _preprocessor(sizes: MEDConfig) -> dict[str, object]:
    side = sizes.vision.image_size
    return {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "BlipProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }


def _write(path: Path, values: dict[str, object]) -> None:
    publish(str(path), (json.dumps(values, indent=2) + "\n").encode())
