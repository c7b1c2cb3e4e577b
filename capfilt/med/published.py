"""Names of published weights, and where each goes in MED.

Two layouts are read: the original's state dict (pre-training, captioning and retrieval files) and
transformers' BLIP folders, whose text half has the original's names. A name is looked up in a table
of patterns; one that no row knows is an error, so that nothing is dropped or left random unnoticed.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from capfilt.errors import CheckpointError
from capfilt.med.config import MEDConfig, TextConfig, VisionConfig
from capfilt.med.vision import resize_positions

HEAD_WIDTH = 64  # of every published BLIP, in both halves

# Momentum copies, queues and constants: not part of the model that captions or filters.
LEFT_OUT = re.compile(
    r"(visual_encoder|vision_proj|text_encoder|text_proj)_m\.|(image|text|idx)_queue$|queue_ptr$|ptr_queue$"
    r"|position_ids$|logit_scale$"
)

# Two names for one tensor: the decoder's output matrix and bias are the word embedding and the head's bias.
TIED = re.compile(r"cls\.predictions\.decoder\.(weight|bias)$")

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
    (r"text_decoder\.cls\.predictions\.transform\.dense\.(.+)", r"text.head.dense.\1"),
    (r"text_decoder\.cls\.predictions\.transform\.LayerNorm\.(.+)", r"text.head.norm.\1"),
    (r"(vision_proj|text_proj|itm_head)\.(.+)", r"\1.\2"),
    (r"temp", r"temperature"),
)
_ATTENTION = ((".self.", "."), (".output.dense.", ".out."), (".output.LayerNorm.", ".norm."))
_COMPILED = tuple((re.compile(pattern), target) for pattern, target in NAMES)


def translate(name: str) -> str | None:
    """Return MED's name for a published tensor, or None if no row of the table knows it."""
    for pattern, target in _COMPILED:
        if match := pattern.fullmatch(name):
            ours = match.expand(target)
            if "_attn." in ours and ours.startswith("text."):
                for theirs, here in _ATTENTION:
                    ours = ours.replace(theirs, here)
            return ours
    return None


def from_published(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return a published state dict under MED's names, in float32.

    Raises:
        CheckpointError: a name is not in the table, or two names of one shared tensor hold different values.
    """
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in state.items():
        if LEFT_OUT.search(name) or TIED.search(name):
            continue
        target = translate(name)
        if target is None:
            unknown.append(name)
        elif target in ours and not torch.equal(ours[target], tensor.float()):
            raise CheckpointError(
                f"{where}: {name} differs from the tensor it should share; encoder and decoder of this file are "
                "separate models (VQA?), which MED cannot hold"
            )
        else:
            ours[target] = tensor.float()
    if unknown:
        raise CheckpointError(
            f"{where}: {len(unknown)} tensors have no place in MED (first: {unknown[0]}); "
            "it reads BLIP's pre-training, captioning and retrieval checkpoints"
        )
    return ours


def infer_config(
    state: Mapping[str, Tensor], image_size: int | None = None, heads: tuple[int, int] | None = None
) -> MEDConfig:
    """Return the sizes that a state dict under MED's names was built with.

    Args:
        state: from from_published.
        image_size: pixels; that of the position table when None.
        heads: of the vision tower and of the text stack, which no tensor tells; width / 64 when None.
    """
    patches, words = state["vision.vit.patch_embed.proj.weight"], state["text.embeddings.words.weight"]
    tokens = state["vision.vit.pos_embed"].shape[1] - 1
    patch, width = patches.shape[-1], words.shape[1]
    vision_heads, text_heads = heads or (patches.shape[0] // HEAD_WIDTH, width // HEAD_WIDTH)
    projection = state.get("vision_proj.weight")
    return MEDConfig(
        vision=VisionConfig(
            image_size=image_size or patch * round(tokens**0.5),
            patch_size=patch,
            width=patches.shape[0],
            depth=_depth(state, "vision.vit.blocks."),
            heads=vision_heads,
        ),
        text=TextConfig(
            vocabulary=words.shape[0],
            width=width,
            depth=_depth(state, "text.blocks."),
            heads=text_heads,
            mlp_width=state["text.blocks.0.mlp.up.weight"].shape[0],
            positions=state["text.embeddings.positions.weight"].shape[0],
        ),
        projection=256 if projection is None else projection.shape[0],
        encoder="text.blocks.0.encoder_attn.query.weight" in state,
        decoder="text.blocks.0.decoder_attn.query.weight" in state,
    )


def fit_positions(state: dict[str, Tensor], config: MEDConfig) -> dict[str, Tensor]:
    """Return the state with its position table interpolated to the config's image size."""
    tokens = 1 + (config.vision.image_size // config.vision.patch_size) ** 2
    return {**state, "vision.vit.pos_embed": resize_positions(state["vision.vit.pos_embed"], tokens)}


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix))
