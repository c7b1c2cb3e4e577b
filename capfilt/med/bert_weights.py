"""A BERT checkpoint folder, read as weights for MED's text stack (arXiv 1810.04805)."""

import re
from pathlib import Path

from torch import Tensor

from capfilt.config.sizes import TextConfig
from capfilt.errors import CheckpointError
from capfilt.med.published import translate
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.weights import CONFIG, load_json, load_tensors, weights_file, words_file

# BLIP has no token types and no next-sentence head; the decoder's matrix is the word embedding under a second name.
LEFT_OUT = re.compile(
    r"(bert\.)?(pooler\..+|embeddings\.(token_type_embeddings\..+|position_ids))"
    r"|cls\.(seq_relationship\..+|predictions\.decoder\.(weight|bias))"
)
POSITIONS = "text.embeddings.positions.weight"


def read_bert(folder: Path, sizes: TextConfig, tokenizer: Tokenizer) -> tuple[dict[str, Tensor], list[str]]:
    """Return a BERT's weights under MED's names, the same for both self-attentions, and the names that are left out.

    A name that MED lacks is kept unchanged. If there are more positions than asked for, the first are taken.

    Args:
        folder: with config.json, model.safetensors or pytorch_model.bin, and vocab.txt or tokenizer.json.
        sizes: of the text stack that the weights are for.
        tokenizer: its vocabulary must be the BERT's.

    Raises:
        CheckpointError: there is no BERT, or its sizes or words differ; the message says what to set.
    """
    if not folder.is_dir():
        raise CheckpointError(f"no BERT at {folder}; give a folder with config.json, model.safetensors and vocab.txt")
    _check(folder, load_json(folder / CONFIG), sizes)
    vocabulary = words_file(folder)
    if Tokenizer(vocabulary).vocabulary != tokenizer.vocabulary:
        raise CheckpointError(
            f"{folder}: its words are not those of model.vocabulary; set model.vocabulary: {vocabulary}"
        )
    weights: dict[str, Tensor] = {}
    left_out = []
    for name, tensor in load_tensors(weights_file(folder)).items():
        if LEFT_OUT.fullmatch(name):
            left_out.append(name)
        else:
            weights |= dict.fromkeys(our_names(name) or [name], tensor.float())
    if POSITIONS in weights and weights[POSITIONS].ndim:
        weights[POSITIONS] = weights[POSITIONS][: sizes.positions]
    return weights, left_out


def our_names(name: str) -> list[str]:
    """Return the names of a BERT tensor in MED, by the table of published names; empty if MED has no such tensor."""
    # The first BERT files name a norm's two tensors as TensorFlow does.
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    bare = name.removeprefix("bert.")
    published = (
        [f"text_decoder.{name}"] if name.startswith("cls.") else [f"text_encoder.{bare}", f"text_decoder.bert.{bare}"]
    )
    return [ours for ours in map(translate, published) if ours]


def _check(folder: Path, values: dict[str, object], sizes: TextConfig) -> None:
    if values.get("model_type") != "bert":
        raise CheckpointError(f"{folder}: config.json is of model type {values.get('model_type')}; bert is read")
    for key, ours in (("hidden_act", "gelu"), ("layer_norm_eps", sizes.norm_eps)):
        if values.get(key, ours) != ours:
            raise CheckpointError(f"{folder}: has {key}: {values[key]}, and MED's text stack {ours}; give another BERT")
    settings = {
        "text_width": ("hidden_size", sizes.width),
        "text_depth": ("num_hidden_layers", sizes.depth),
        "text_heads": ("num_attention_heads", sizes.heads),
    }
    found = {setting: values.get(key, ours) for setting, (key, ours) in settings.items()}
    wrong = [f"model.{setting}: {value}" for setting, value in found.items() if value != settings[setting][1]]
    longest = values.get("max_position_embeddings", sizes.positions)
    if isinstance(longest, int) and longest < sizes.positions:
        wrong.append(f"model.positions: {longest}")
    if wrong:
        raise CheckpointError(f"{folder}: holds a BERT of other sizes; set {', '.join(wrong)}")
