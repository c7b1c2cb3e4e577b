"""Names of published weights, and where each goes in MED, VQA and NLVR2.

Two layouts are read: the original's state dict (pre-training, captioning, retrieval, VQA and NLVR2 files)
and transformers' BLIP folders, whose text half has the original's names. A name is looked up in a table
of patterns; one that no row matches is an error, so that nothing is dropped or left random unnoticed.
"""

import logging
import re
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from capfilt.config.sizes import MEDConfig, NLVR2Sizes, Sizes, TextConfig, VisionConfig, VQASizes
from capfilt.errors import CheckpointError
from capfilt.med.vision import is_square, resize_positions

logger = logging.getLogger(__name__)

Kind = Literal["med", "vqa", "nlvr2"]
HeadCounts = tuple[int | None, int | None]  # of the vision tower and of the text stack; None where not known

HEAD_WIDTH = 64  # of every published BLIP, in both halves
PUBLISHED_WIDTHS = (768, 1024)
POSITIONS = "vision.vit.pos_embed"

# Momentum copies, queues and constants: not part of the model that captions or filters.
LEFT_OUT = re.compile(
    r"(visual_encoder|vision_proj|text_encoder|text_proj)_m\.|(image|text|idx)_queue$|queue_ptr$|ptr_queue$"
    r"|position_ids$|logit_scale$"
)

_TEXT = r"(?:text_encoder|text_decoder\.bert)\."
_LAYER = _TEXT + r"encoder\.layer\.(\d+)\."

NAMES: tuple[tuple[str, str], ...] = (
    (r"visual_encoder\.(.+)", r"vision.vit.\1"),
    (r"vision_model\.embeddings\.class_embedding", r"vision.vit.cls_token"),
    (r"vision_model\.embeddings\.position_embedding", r"vision.vit.pos_embed"),
    (r"vision_model\.embeddings\.patch_embedding\.(.+)", r"vision.vit.patch_embed.proj.\1"),
    (r"vision_model\.encoder\.layers\.(\d+)\.layer_norm([12])\.(.+)", r"vision.vit.blocks.\1.norm\2.\3"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.qkv\.(.+)", r"vision.vit.blocks.\1.attn.qkv.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.self_attn\.projection\.(.+)", r"vision.vit.blocks.\1.attn.proj.\2"),
    (r"vision_model\.encoder\.layers\.(\d+)\.mlp\.(.+)", r"vision.vit.blocks.\1.mlp.\2"),
    (r"vision_model\.post_layernorm\.(.+)", r"vision.vit.norm.\1"),
    (_TEXT + r"embeddings\.word_embeddings\.weight", r"text.embeddings.words.weight"),
    (_TEXT + r"embeddings\.position_embeddings\.weight", r"text.embeddings.positions.weight"),
    (_TEXT + r"embeddings\.LayerNorm\.(.+)", r"text.embeddings.norm.\1"),
    (r"text_encoder\.encoder\.layer\.(\d+)\.attention\.(.+)", r"text.blocks.\1.encoder_attn.\2"),
    (r"text_decoder\.bert\.encoder\.layer\.(\d+)\.attention\.(.+)", r"text.blocks.\1.decoder_attn.\2"),
    (_LAYER + r"crossattention\.(.+)", r"text.blocks.\1.cross_attn.\2"),
    (_LAYER + r"intermediate\.dense\.(.+)", r"text.blocks.\1.mlp.up.\2"),
    (_LAYER + r"output\.dense\.(.+)", r"text.blocks.\1.mlp.down.\2"),
    (_LAYER + r"output\.LayerNorm\.(.+)", r"text.blocks.\1.mlp.norm.\2"),
    (r"text_decoder\.cls\.predictions\.bias", r"text.head.bias"),
    # Second names: the decoder's output matrix and bias are the word embedding and the head's bias.
    (r"text_decoder\.cls\.predictions\.decoder\.weight", r"text.embeddings.words.weight"),
    (r"text_decoder\.cls\.predictions\.decoder\.bias", r"text.head.bias"),
    (r"text_decoder\.cls\.predictions\.transform\.dense\.(.+)", r"text.head.dense.\1"),
    (r"text_decoder\.cls\.predictions\.transform\.LayerNorm\.(.+)", r"text.head.norm.\1"),
    (r"(vision_proj|text_proj|itm_head)\.(.+)", r"\1.\2"),
    (r"temp", r"temperature"),
)
NLVR2_NAMES: tuple[tuple[str, str], ...] = (
    (_LAYER + r"crossattention\.self([01])\.(.+)", r"text.blocks.\1.cross_attn.sides.\2.\3"),
    (_LAYER + r"crossattention\.output\.dense([01])\.(.+)", r"text.blocks.\1.cross_attn.sides.\2.out.\3"),
    (_LAYER + r"crossattention\.output\.merge_layer\.(.+)", r"text.blocks.\1.cross_attn.merge.\2"),
    (r"cls_head\.([02])\.(.+)", r"head.\1.\2"),
    *NAMES,
)
ATTENTION = ((".self.", "."), (".output.dense.", ".out."), (".output.LayerNorm.", ".norm."))


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """Return which model a published state dict belongs to."""
    if any(name.startswith("cls_head.") for name in state):
        return "nlvr2"
    stacks = {name.partition(".")[0] for name in state}
    return "vqa" if {"text_encoder", "text_decoder"} <= stacks and "itm_head" not in stacks else "med"


def translate(name: str, kind: Kind = "med") -> str | None:
    """Return our name for a published tensor, or None if no row of the table knows it."""
    ours = _look_up(name, NLVR2_NAMES if kind == "nlvr2" else NAMES)
    if ours is None or kind != "vqa":
        return ours
    stack = "answers." if name.startswith("text_decoder.") else "questions."
    return re.sub(r"^text\.", stack, ours)


def _look_up(name: str, table: tuple[tuple[str, str], ...]) -> str | None:
    for row, target in table:
        pattern = re.compile(row)  # cached by re
        if match := pattern.fullmatch(name):
            ours = match.expand(target)
            if "_attn." in ours and ours.startswith("text."):
                for theirs, here in ATTENTION:
                    ours = ours.replace(theirs, here)
            return ours
    return None


def from_published(state: Mapping[str, Tensor], where: str, kind: Kind = "med") -> dict[str, Tensor]:
    """Return a published state dict under our names, in float32.

    Raises:
        CheckpointError: a name is not in the table, or two names of one shared tensor hold different values.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        if LEFT_OUT.search(name):
            continue
        target = translate(name, kind)
        if target is None:
            unknown.append(name)
        elif target in ours and not _equal(ours[target], tensor.float()):
            raise CheckpointError(
                f"{where}: {name} differs from the tensor that it should share with encoder, decoder or embedding; "
                "fetch the file again, or give one whose weights are tied"
            )
        else:
            ours[target] = tensor.float()
    if unknown:
        raise CheckpointError(
            f"{where}: tensors without a place in {kind.upper()}: {len(unknown)} (first: {unknown[0]}); "
            "BLIP's pre-training, captioning, retrieval, VQA and NLVR2 checkpoints are read"
        )
    return ours


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal; without values, whether they could be."""
    return one.shape == other.shape if one.is_meta else torch.equal(one, other)


def infer_config(
    state: Mapping[str, Tensor], image_size: int | None = None, heads: HeadCounts = (None, None)
) -> MEDConfig:
    """Return the sizes that a state dict under MED's names was built with.

    Args:
        state: from from_published.
        image_size: pixels; that of the position table when None.
        heads: numbers of attention heads, which no tensor tells; None takes the head width of the published models.

    Raises:
        ValueError: heads is None for a width that is not a multiple of that head width.
    """
    projection = state.get("vision_proj.weight")
    return MEDConfig(
        vision=_vision(state, image_size, heads[0]),
        text=_text(state, "text", heads[1]),
        projection=256 if projection is None else projection.shape[0],
        encoder="text.blocks.0.encoder_attn.query.weight" in state,
        decoder="text.blocks.0.decoder_attn.query.weight" in state,
    )


def infer_vqa(state: Mapping[str, Tensor], image_size: int | None = None, heads: HeadCounts = (None, None)) -> VQASizes:
    """Return the sizes of a VQA model; arguments as in infer_config."""
    return VQASizes(vision=_vision(state, image_size, heads[0]), text=_text(state, "questions", heads[1]))


def infer_nlvr2(
    state: Mapping[str, Tensor], image_size: int | None = None, heads: HeadCounts = (None, None)
) -> NLVR2Sizes:
    """Return the sizes of an NLVR2 model; arguments as in infer_config."""
    text = _text(state, "text", heads[1])
    merging = [layer for layer in range(text.depth) if f"text.blocks.{layer}.cross_attn.merge.weight" in state]
    vision = _vision(state, image_size, heads[0])
    return NLVR2Sizes(vision=vision, text=text, merge_from=min(merging, default=text.depth))


INFER: dict[Kind, Callable[[Mapping[str, Tensor], int | None, HeadCounts], Sizes]] = {
    "med": infer_config,
    "vqa": infer_vqa,
    "nlvr2": infer_nlvr2,
}
"""By kind of model, what infers its sizes."""


def _vision(state: Mapping[str, Tensor], image_size: int | None, heads: int | None) -> VisionConfig:
    patches = state["vision.vit.patch_embed.proj.weight"]  # (D, 3, P, P)
    patch, tokens = patches.shape[-1], state[POSITIONS].shape[1] - 1
    return VisionConfig(
        image_size=image_size or patch * round(max(tokens, 0) ** 0.5),
        patch_size=patch,
        width=patches.shape[0],
        depth=_depth(state, "vision.vit.blocks."),
        heads=heads or _published_heads(patches.shape[0], "--vision-heads"),
    )


def _text(state: Mapping[str, Tensor], stack: str, heads: int | None) -> TextConfig:
    vocabulary, width = state[f"{stack}.embeddings.words.weight"].shape
    return TextConfig(
        vocabulary=vocabulary,
        width=width,
        depth=_depth(state, f"{stack}.blocks."),
        heads=heads or _published_heads(width, "--text-heads"),
        mlp_width=state[f"{stack}.blocks.0.mlp.up.weight"].shape[0],
        positions=state[f"{stack}.embeddings.positions.weight"].shape[0],
    )


def _published_heads(width: int, option: str) -> int:
    remedy = f"to say how many, convert it once: capfilt checkpoint convert FILE FOLDER {option} N"
    if width % HEAD_WIDTH:
        raise ValueError(f"a width of {width} may have any number of attention heads; {remedy}")
    if width not in PUBLISHED_WIDTHS:
        logger.warning("a width of %d is taken for attention heads of %d each; %s", width, HEAD_WIDTH, remedy)
    return width // HEAD_WIDTH


def fit_positions(state: dict[str, Tensor], config: Sizes) -> dict[str, Tensor]:
    """Return the state with its position table interpolated to the config's image size.

    A table that is not a class token and a square of patches stays as it is, and is then reported as a misfit.
    """
    table = state.get(POSITIONS)
    if table is None or table.ndim != 3 or len(table) != 1 or not is_square(table.shape[1] - 1):
        return state
    return {**state, POSITIONS: resize_positions(table, config.vision.tokens)}


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))
