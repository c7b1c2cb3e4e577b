"""The reference outputs of the original's training steps, and what runs ours on the same inputs."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from capfilt.config.momentum import MomentumSettings
from capfilt.med.model import MED
from capfilt.med.momentum import resume_published
from capfilt.med.published import from_published, infer_config, translate
from capfilt.med.tokenizer import Tokenizer
from capfilt.training.data import Batch
from capfilt.training.objectives import Filtering, Pretraining


def as_they_are(pixels: Tensor) -> Tensor:
    """Stand in for the objectives' normalise: the reference's images are normalised already.

    To undo that and do it again would cost a rounding, which Adam's first step blows up to 0.2 % of some gradients.
    """
    return pixels


class Largest:
    """Takes the likeliest negatives, as the reference does in place of a draw, and remembers weights and choice."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.chosen: list[Tensor] = []

    def __call__(self, weights: Tensor, count: int) -> Tensor:
        self.weights.append(weights)
        self.chosen.append(weights.topk(count, dim=1).indices)
        return self.chosen[-1]


class Reference:
    """The inputs, weights and outputs of a folder of reference files."""

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.ranks = json.loads((folder / "dist2_meta.json").read_text())
        self.tensors, self.rank_tensors = _read(folder / "tensors"), _read(folder / "dist2_tensors")
        self.state = _read(folder / "pretrain_state")
        self.tokenizer = Tokenizer(folder / "vocab.txt")

    def settings(self, **changes: object) -> MomentumSettings:
        size = self.state["image_queue"].shape[1]
        return MomentumSettings(queue=size, alpha=0.4, alpha_ramp=0.0).model_copy(update=changes)

    def model(self, decoder: bool) -> MED:
        state = {name: t for name, t in self.state.items() if decoder or not name.startswith("text_decoder")}
        ours = from_published(state, "reference")
        sizes = self.meta["config"]
        model = MED(infer_config(ours, heads=(sizes["vh"], sizes["ta"])))
        model.load_state_dict(ours)
        for module in model.modules():  # the reference was made without dropout
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        return model

    def pretraining(self, **changes: object) -> Pretraining:
        objective = Pretraining(self.model(True), self.tokenizer, 0.0, self.settings(**changes), choose=Largest())
        resume_published(objective.momentum, self.state, "reference")
        return objective.train()

    def filtering(self, images: Tensor | None = None, **changes: object) -> Filtering:
        """Return the retrieval fine-tune; images (Q,) are the numbers in its queue, nobody's by default."""
        objective = Filtering(self.model(False), self.tokenizer, self.settings(**changes), choose=Largest())
        named = {} if images is None else {"idx_queue": images}
        resume_published(objective.momentum, {**self.state, **named}, "reference")
        return objective.train()

    def rank_batch(self, rank: int, length: int) -> Batch:
        """Return what a rank of two holds, its texts padded to a length."""
        mine = slice(4 * rank, 4 * rank + 4)
        texts = [self.tokenizer.encode(text, self.tokenizer.cls, length) for text in self.ranks["captions"][mine]]
        ids, keep = self.tokenizer.batch(texts)
        padding = (0, length - ids.shape[1])
        images = torch.tensor(self.ranks["idx"][mine])
        return Batch(self.rank_tensors["in.pixel_values"][mine], F.pad(ids, padding), F.pad(keep, padding), images)


def gradients(model: MED, tensors: dict[str, Tensor], prefix: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Return by original name the gradients that were found and those that are expected."""
    return {
        name: (model.get_parameter(translate(name.removeprefix(prefix))).grad, expected)
        for name, expected in tensors.items()
        if name.startswith(prefix)
    }


def gradient_norm(model: MED) -> float:
    return torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()


def _read(stem: Path) -> dict[str, Tensor]:
    tensors = load_file(stem.with_suffix(".safetensors"))
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
