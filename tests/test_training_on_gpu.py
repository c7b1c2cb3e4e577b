"""What a training step asks of a GPU, seen without one; its way back is torch's own."""

from collections.abc import Iterator

import pytest
import torch
from models import small_config, write_vocabulary
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from without_gpu import GPU, Watch, pin, to_gpu

from capfilt.config.momentum import MomentumSettings
from capfilt.config.sizes import NLVR2Sizes, VQASizes
from capfilt.config.training import Schedule
from capfilt.med.model import MED
from capfilt.med.nlvr2 import NLVR2
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.vqa import VQA
from capfilt.training.answering import Answering
from capfilt.training.data import Batch
from capfilt.training.devices import Precision
from capfilt.training.job import Job
from capfilt.training.loop import _Stepper
from capfilt.training.objectives import Captioning, Filtering, Objective, Pretraining
from capfilt.training.questions import QuestionBatch
from capfilt.training.reasoning import Reasoning
from capfilt.training.schedule import Course
from capfilt.training.statements import StatementBatch

B, A, L = 4, 6, 8  # images, answers, tokens


class Forward(Exception):
    """Behind the way forward: for the way back autograd asks a driver for streams."""


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def where(request, monkeypatch) -> Precision:
    """A GPU, which autocast would not believe in."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    return Precision(GPU, request.param)


@pytest.fixture
def watch(monkeypatch) -> Iterator[Watch]:
    """A watch on tensors without values."""
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), Watch() as watch:
        yield watch


def make(name: str, tokenizer: Tokenizer) -> Objective:
    model, momentum = MED(small_config(len(tokenizer))), MomentumSettings(queue=16)
    vision, text = model.config.vision, model.config.text
    return {
        "captioning": lambda: Captioning(model, tokenizer, "a picture of"),
        "filtering": lambda: Filtering(model, tokenizer),
        "filtering with momentum": lambda: Filtering(model, tokenizer, momentum),
        "pretraining": lambda: Pretraining(model, tokenizer, 0.0, momentum),
        "answering": lambda: Answering(VQA(VQASizes(vision=vision, text=text))),
        "reasoning": lambda: Reasoning(NLVR2(NLVR2Sizes(vision=vision, text=text, merge_from=1))),
    }[name]()


def batch(objective: Objective) -> Batch | QuestionBatch | StatementBatch:
    """Return a batch as it comes from the loader, on the host."""
    pixels, texts = torch.zeros(B, 3, 32, 32, dtype=torch.uint8), torch.zeros(B, L, dtype=torch.long)
    numbers, keep = torch.zeros(B, dtype=torch.long), torch.ones(B, L, dtype=torch.bool)
    if isinstance(objective, Answering):
        answers, owners = torch.zeros(A, L, dtype=torch.long), torch.zeros(A, dtype=torch.long)
        return QuestionBatch(pixels, texts, keep, answers, answers > 0, torch.ones(A), owners)
    if isinstance(objective, Reasoning):
        return StatementBatch(torch.stack([pixels, pixels], dim=1), texts, keep, numbers)
    return Batch(pixels, texts, keep, numbers)


@pytest.mark.parametrize(
    "name", ["captioning", "filtering", "filtering with momentum", "pretraining", "answering", "reasoning"]
)
def test_neither_a_batch_nor_its_losses_make_the_host_wait(tmp_path, request, where, name):
    objective = make(name, Tokenizer(write_vocabulary(tmp_path))).train()
    watch = request.getfixturevalue("watch")  # behind the model's making, which needs values
    new = to_gpu(objective)
    if (momentum := getattr(objective, "momentum", None)) is not None:
        momentum._slow, momentum._online = ([new[p] for p in each] for each in (momentum._slow, momentum._online))
    losses: list[Tensor] = []

    def forward(*inputs: object) -> None:
        losses.extend(objective(*inputs).values())
        raise Forward

    stepper = _Stepper(Job(objective, [], print), None, Course(Schedule(steps=9, batch_size=B), 9), where, 0)
    stepper.module = forward
    with pytest.raises(Forward):
        stepper._gradient(5, batch(objective), 1)
    assert losses
    for loss in losses:
        assert (loss.device, loss.dtype, loss.shape) == (GPU, torch.float32, ())
    assert watch.waits == []
