"""Steps on tensors that stay: the same captions as without, whatever comes before. The graphs themselves need a GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import lively_checkpoint

from capfilt.config import Sampling
from capfilt.med import generation
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.draft import Draft, Written
from capfilt.med.generation import Pen
from capfilt.med.gpu import own_stream
from capfilt.med.graphs import Recorder, Replay
from capfilt.med.sampling import uniforms

SETTINGS = Sampling(captions=2, min_length=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path_factory.mktemp("med"))


class Steps:
    """Records steps as a GPU does: from then on they are done again on the same tensors, whatever is passed."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, step: Callable[[], Draft | None]) -> tuple[Draft | None, Replay]:
        self.recorded += 1
        first = step()

        def replay() -> None:
            self.replayed += 1
            again = step()
            if first is not None and again is not None:  # what a graph makes lies where it lay when it was recorded
                for mine, its in zip(tensors(first), tensors(again), strict=True):
                    mine.copy_(its)

        return first, replay


def tensors(draft: Draft) -> list[torch.Tensor]:
    caches = [each for cache in draft.caches for each in (cache.keys, cache.values)]
    return [draft.ids, draft.logprobs, draft.done, *caches, *(each for pair in draft.image for each in pair)]


@torch.inference_mode()
def written(
    checkpoint: Checkpoint, numbers: range, recorder: Recorder | None = None, device: str = "cpu", **settings: Any
) -> Written:
    chosen = SETTINGS.model_copy(update=settings)
    images = [torch.randn(17, 32, generator=torch.Generator().manual_seed(number)) for number in numbers]
    states = torch.stack(images).to(device)  # (B, M, D)
    prompt = [checkpoint.tokens.dec, *checkpoint.tokens.pieces("a picture of")]
    pen = Pen(checkpoint.model, prompt, checkpoint.tokens.end, chosen)
    noise = None
    if chosen.method == "nucleus":
        noise = uniforms(list(numbers), chosen.captions, chosen.max_length).to(device)
    if recorder is None:
        return generation.write(pen, checkpoint.model.project_image(states), noise)
    return recorder.write(pen, states, noise)


def same(found: Written, expected: Written) -> None:
    assert found.ids.equal(expected.ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"method": "greedy", "captions": 1}])
def test_batch_after_batch_on_the_same_tensors_gives_the_captions_of_each(checkpoint, settings):
    steps = Steps()
    recorder = Recorder(lambda: steps)
    for first in (0, 6, 0):
        numbers = range(first, first + 6)
        same(written(checkpoint, numbers, recorder, **settings), written(checkpoint, numbers, **settings))
    assert steps.recorded == 1 + 4  # the prompt with the first token, and four spells of four tokens
    assert 3 < steps.replayed <= 3 * steps.recorded


@pytest.mark.parametrize("images", [4, 7])
def test_a_batch_of_another_size_is_written_too(checkpoint, images):
    recorder = Recorder(Steps)
    for numbers in (range(6), range(images), range(6)):
        same(written(checkpoint, numbers, recorder), written(checkpoint, numbers))


def test_a_smaller_batch_does_not_take_the_tape_of_the_whole_ones(checkpoint):
    steps = Steps()
    recorder = Recorder(lambda: steps)
    recorded = []
    for images in (6, 2, 6):
        written(checkpoint, range(images), recorder)
        recorded.append(steps.recorded)
    assert recorded == [5, 5, 5]


def test_once_all_captions_are_finished_no_step_is_taken(checkpoint, monkeypatch):
    steps = Steps()
    recorder = Recorder(lambda: steps)
    written(checkpoint, range(6), recorder)
    looks = iter([True, False])
    monkeypatch.setattr(Draft, "shrink", lambda self: next(looks))
    before = steps.replayed
    written(checkpoint, range(6), recorder)
    assert steps.replayed - before == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_on_a_gpu_give_the_captions_of_steps_without(tmp_path):
    checkpoint = lively_checkpoint(tmp_path)
    checkpoint.model.to("cuda")
    recorder = Recorder()
    with own_stream("cuda"):
        for first in (0, 6, 0):
            numbers = range(first, first + 6)
            same(written(checkpoint, numbers, recorder, "cuda"), written(checkpoint, numbers, device="cuda"))
