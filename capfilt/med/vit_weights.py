"""ViT weights under timm's names, from timm or a file, read for MED's vision tower (arXiv 2010.11929)."""

import math
import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from capfilt.config.sizes import VisionConfig
from capfilt.errors import CheckpointError
from capfilt.med.published import POSITIONS
from capfilt.med.vision import is_square, resize_positions
from capfilt.med.weights import DAMAGE, OUTAGE, check_unpacked, count_parameters, load_tensors, on_meta, weights_file

CLASSIFIER = re.compile(r"(head|pre_logits)[./].+")


class ViT(NamedTuple):
    """Weights under timm's names, the attention heads where they are known, and names that are left out."""

    state: dict[str, Tensor]
    heads: int | None
    left_out: list[str]


def read_vit(source: str, sizes: VisionConfig) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights of a ViT under MED's names, and the names that are left out.

    Positions are interpolated to the image size. A name that MED lacks is kept unchanged.

    Args:
        source: a .safetensors, .pth or .npz file, a folder with model.safetensors, or the name of a timm model.
        sizes: of the tower that the weights are for.

    Raises:
        CheckpointError: there is no ViT, or its sizes differ; the message says what to set.
    """
    vit = _read(source)
    _check(source, vit, sizes)
    weights = {f"vision.vit.{name}": tensor.float() for name, tensor in vit.state.items()}
    if POSITIONS in weights:
        found = weights[POSITIONS].shape[1]
        if not is_square(found - 1):
            raise CheckpointError(f"{source}: has {found} positions, not a class token's and a square of patches'")
        weights[POSITIONS] = resize_positions(weights[POSITIONS], sizes.tokens)
    return weights, vit.left_out


def _read(source: str) -> ViT:
    path = Path(source)
    if not path.exists():
        return _from_timm(source)
    if path.suffix == ".npz":
        return _from_npz(path)
    state = load_tensors(weights_file(path) if path.is_dir() else path)
    left_out = [name for name in state if CLASSIFIER.fullmatch(name)]
    return ViT({name: tensor for name, tensor in state.items() if name not in left_out}, None, left_out)


def _from_timm(name: str) -> ViT:
    if not timm.is_model(name):
        raise CheckpointError(
            f"{name}: is neither a file, nor a folder, nor a model of timm; "
            "give ViT weights (.safetensors, .pth or .npz), or a name such as deit_base_patch16_224"
        )
    try:
        model = timm.create_model(name, pretrained=not on_meta(), num_classes=0)  # a dry run fetches nothing
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{name}: timm cannot get its weights ({reason}); bring their model.safetensors here and give its path"
        ) from None
    if type(model) is not VisionTransformer or type(model.blocks[0]) is not Block:
        raise CheckpointError(
            f"{name}: is not a plain ViT, as the vision tower is; give one such as deit_base_patch16_224"
        )
    return ViT(model.state_dict(), model.blocks[0].attn.num_heads, [])


def _from_npz(path: Path) -> ViT:
    """Read the layout of the ImageNet-21k ViTs (arXiv 2106.10270), from which the original's ViT-L starts."""
    try:
        check_unpacked(path, "save its arrays by numpy.savez")
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            patch, width = archive["embedding/kernel"].shape[1::2]
            tokens = archive["Transformer/posembed_input/pos_embedding"].shape[1]
            heads = archive["Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"].shape[1]
        depth = sum(bool(re.fullmatch(r"Transformer/encoderblock_\d+/LayerNorm_0/scale", name)) for name in names)
        build = partial(
            VisionTransformer,
            img_size=patch * math.isqrt(tokens - 1),
            patch_size=patch,
            embed_dim=width,
            num_heads=heads,
            num_classes=0,
        )
        with torch.device("meta"):  # a few small arrays may claim sizes beyond any memory
            least = build(depth=1)
        numbers = count_parameters(least) + (depth - 1) * count_parameters(least.blocks)
        if numbers > (size := path.stat().st_size):
            raise ValueError(f"its tower has {numbers} numbers, the file {size} bytes")
        tower = build(depth=depth)
        tower.load_pretrained(str(path))
    except (*DAMAGE, ArithmeticError, MemoryError) as error:  # for sizes of 0, and for arrays beyond any memory
        if isinstance(error, OSError) and error.errno in OUTAGE:
            raise
        raise CheckpointError(f"{path}: is not a ViT in the layout of the ImageNet-21k files ({error})") from None
    return ViT(tower.state_dict(), heads, [name for name in names if CLASSIFIER.fullmatch(name)])


def _check(source: str, vit: ViT, sizes: VisionConfig) -> None:
    patches = vit.state.get("patch_embed.proj.weight")  # (D, 3, P, P)
    if patches is None or patches.ndim != 4:
        raise CheckpointError(f"{source}: holds no patch_embed.proj.weight; give ViT weights under timm's names")
    blocks = {name.split(".")[1] for name in vit.state if name.startswith("blocks.")}
    found = {
        "stem": ("patch", sizes.stem),
        "patch_size": (patches.shape[-1], sizes.patch_size),
        "vision_width": (patches.shape[0], sizes.width),
        "vision_depth": (len(blocks), sizes.depth),
        "vision_heads": (vit.heads or sizes.heads, sizes.heads),
    }
    wrong = [f"model.{setting}: {theirs}" for setting, (theirs, ours) in found.items() if theirs != ours]
    if wrong:
        raise CheckpointError(f"{source}: is a ViT of other sizes; set {', '.join(wrong)}")
