"""Steps on tensors that stay: the same captions as without, whatever comes before. The graphs themselves need a GPU."""

from collections.abc import Callable

import pytest
import torch
from models import lively_checkpoint

from capfilt.config import Sampling
from capfilt.med import graphs
from capfilt.med.attention import KeysValues
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.generation import Written, sample
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

    def __call__(self, step: Callable[[], None]) -> Replay:
        self.recorded += 1
        step()  # a GPU's libraries set themselves up

        def replay() -> None:
            self.replayed += 1
            step()

        return replay


@torch.inference_mode()
def write(checkpoint: Checkpoint, numbers: range, recorder: Recorder | None = None, device: str = "cpu") -> Written:
    images = [torch.randn(17, 32, generator=torch.Generator().manual_seed(number)) for number in numbers]
    image: list[KeysValues] = checkpoint.model.project_image(torch.stack(images).to(device))
    prompt = [checkpoint.tokens.dec, *checkpoint.tokens.pieces("a picture of")]
    noise = uniforms(list(numbers), SETTINGS.captions, SETTINGS.max_length).to(device)
    return sample(checkpoint.model, image, prompt, checkpoint.tokens.end, SETTINGS, noise, recorder)


def same(found: Written, expected: Written) -> None:
    assert found.ids.equal(expected.ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=1e-4)


def test_batch_after_batch_on_the_same_tensors_gives_the_captions_of_each(checkpoint):
    steps = Steps()
    recorder = Recorder(steps)
    for first in (0, 6, 0):
        numbers = range(first, first + 6)
        same(write(checkpoint, numbers, recorder), write(checkpoint, numbers))
    assert 0 < steps.recorded <= SETTINGS.max_length - 4  # each position once
    assert steps.replayed > 2 * steps.recorded


@pytest.mark.parametrize("images", [4, 7])
def test_a_batch_of_another_size_is_written_too(checkpoint, images):
    recorder = Recorder(Steps())
    for numbers in (range(6), range(images), range(6)):
        same(write(checkpoint, numbers, recorder), write(checkpoint, numbers))


def test_a_smaller_batch_does_not_take_the_tape_of_the_whole_ones(checkpoint):
    steps = Steps()
    recorder = Recorder(steps)
    for images in (6, 2, 6):
        before = steps.recorded
        write(checkpoint, range(images), recorder)
    assert steps.recorded == before


def test_a_batch_that_keeps_the_gpu_busy_goes_without(checkpoint, monkeypatch):
    monkeypatch.setattr(graphs, "MOST_IMAGES", 5)
    steps = Steps()
    same(write(checkpoint, range(6), Recorder(steps)), write(checkpoint, range(6)))
    assert steps.recorded == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_on_a_gpu_give_the_captions_of_steps_without(tmp_path):
    checkpoint = lively_checkpoint(tmp_path)
    checkpoint.model.to("cuda")
    recorder = Recorder()
    for first in (0, 6, 0):
        numbers = range(first, first + 6)
        same(write(checkpoint, numbers, recorder, "cuda"), write(checkpoint, numbers, device="cuda"))
