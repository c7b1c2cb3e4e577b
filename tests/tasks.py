"""VQA and NLVR2 models: the reference's, and small ones with random weights, with data files to go with them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from models import lively_checkpoint
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from capfilt.med.checkpoints import NLVR2Checkpoint, VQACheckpoint
from capfilt.med.downstream import nlvr2_from, vqa_from
from capfilt.med.nlvr2 import NLVR2
from capfilt.med.published import from_published, infer_nlvr2, infer_vqa
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vqa import VQA

HEADS = (4, 4)
TOLERANCE = 1e-5  # the reference tells no noise of its own for these two; that of its other losses and logits is below


class Reference(NamedTuple):
    """Outputs of the original implementation, and what they were computed from."""

    meta: dict
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer

    def text(self, name: str, first: int) -> Tensor:
        """Return ids whose first token is the one that was trained."""
        ids = self.tensors[f"in.{name}"].clone()
        ids[:, 0] = first
        return ids


def read_reference(shared: Path) -> Reference:
    folder = shared / "fixtures" / "a"
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in load_file(folder / "tensors.safetensors").items()
    }
    return Reference(json.loads((folder / "meta.json").read_text()), tensors, Tokenizer(folder / "vocab.txt"))


def reference_vqa(shared: Path) -> VQA:
    state = from_published(load_file(shared / "fixtures" / "a" / "vqa_state.safetensors"), "fixture", "vqa")
    model = VQA(infer_vqa(state, heads=HEADS))
    model.load_state_dict(state)
    return model.eval()


def reference_nlvr2(shared: Path) -> NLVR2:
    state = from_published(load_file(shared / "fixtures" / "a" / "nlvr_state.safetensors"), "fixture", "nlvr2")
    model = NLVR2(infer_nlvr2(state, heads=HEADS))
    model.load_state_dict(state)
    return model.eval()


def small_vqa(folder: Path) -> VQACheckpoint:
    start = lively_checkpoint(folder)
    return VQACheckpoint(vqa_from(start.model, drop_path=0.0, seed=0).eval(), start.tokenizer)


def small_nlvr2(folder: Path) -> NLVR2Checkpoint:
    start = lively_checkpoint(folder)
    return NLVR2Checkpoint(nlvr2_from(start.model, merge_from=1, drop_path=0.0, seed=0).eval(), start.tokenizer)


def write_images(folder: Path, *names: str) -> None:
    """Write small pictures, each of another colour."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), 40 * number, np.uint8)).save(path)


def write_json(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)
