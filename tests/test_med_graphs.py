"""Steps on tensors that stay: the same captions as without, whatever comes before. The graphs themselves need a GPU."""

from collections.abc import Callable
from functools import partial
from itertools import count
from threading import Thread
from typing import Any
from unittest.mock import Mock, create_autospec
from weakref import finalize

import pytest
import torch
from capturing import Steps
from models import lively_checkpoint

from capfilt.config import Device, Sampling
from capfilt.med import generation
from capfilt.med.checkpoints import Checkpoint
from capfilt.med.decoding import DecodingState, Generated
from capfilt.med.generation import CaptionGenerator
from capfilt.med.gpu import own_stream
from capfilt.med.graphs import GraphRunner, graph_capture
from capfilt.med.image_encoder import ImageEncoder
from capfilt.med.inference import ready
from capfilt.med.sampling import uniforms
from capfilt.memory import ALONE, InParts

SETTINGS = Sampling(captions=2, min_length=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Checkpoint:
    torch.set_num_threads(1)
    return lively_checkpoint(tmp_path_factory.mktemp("med"))


class Captioning:
    """A captioner's way through its steps."""

    def __init__(
        self, checkpoint: Checkpoint, steps: Steps | None = None, device: str = "cpu", **settings: Any
    ) -> None:
        self.settings = SETTINGS.model_copy(update=settings)
        self.device, self.project = device, checkpoint.model.project_image
        prompt = [checkpoint.tokenizer.dec, *checkpoint.tokenizer.pieces("a picture of")]
        self.generator = CaptionGenerator(checkpoint.model, prompt, checkpoint.tokenizer.end, self.settings)
        capture = (lambda: steps) if steps else graph_capture if device == "cuda" else None
        self.runner = GraphRunner(self._begin, capture)

    def _begin(self, states: torch.Tensor, noise: torch.Tensor | None) -> DecodingState:
        return self.generator.begin(self.project(states), noise, fixed=True)

    def given(self, numbers: range) -> tuple[torch.Tensor, torch.Tensor | None]:
        images = [torch.randn(17, 32, generator=torch.Generator().manual_seed(number)) for number in numbers]
        states = torch.stack(images).to(self.device)  # (B, M, D)
        if self.settings.method == "greedy":
            return states, None
        return states, uniforms(list(numbers), self.settings.captions, self.settings.max_length).to(self.device)

    @torch.inference_mode()
    def captured(self, numbers: range) -> Generated:
        state = self.runner.start(*self.given(numbers))
        return generation.generate(self.generator, state, partial(self.runner.go_on, self.generator.go_on, state))

    @torch.inference_mode()
    def plain(self, numbers: range) -> Generated:
        state = self._begin(*self.given(numbers))
        return generation.generate(self.generator, state, partial(self.generator.go_on, state))


def same(found: Generated, expected: Generated) -> None:
    assert found.ids.equal(expected.ids)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"method": "greedy", "captions": 1}])
def test_batch_after_batch_on_the_same_tensors_gives_the_captions_of_each(checkpoint, monkeypatch, settings):
    monkeypatch.setitem(generation.STEPS_PER_LOOK, "cpu", 4)
    steps = Steps()
    captioning = Captioning(checkpoint, steps, **settings)
    batches = [range(first, first + 6) for first in (0, 6, 0)]
    written = [captioning.captured(numbers) for numbers in batches]  # a later batch leaves them as they are
    for numbers, found in zip(batches, written, strict=True):
        same(found, captioning.plain(numbers))
    assert 2 < steps.captured <= 1 + 4  # the prompt with the first token, and four ranges of four tokens
    assert 3 < steps.replayed <= 3 + 2 * (steps.captured - 1)  # those ranges, the second time


@pytest.mark.parametrize("images", [4, 7])
def test_a_batch_of_another_size_is_written_too(checkpoint, images):
    captioning = Captioning(checkpoint, Steps())
    for numbers in (range(6), range(images), range(6)):
        same(captioning.captured(numbers), captioning.plain(numbers))


def test_a_smaller_batch_does_not_take_the_tape_of_the_whole_ones(checkpoint):
    steps = Steps()
    captioning = Captioning(checkpoint, steps, min_length=20)
    captured = []
    for images in (6, 6, 2, 6):
        captioning.captured(range(images))
        captured.append(steps.captured)
    assert captured == [1] + [1 + 15] * 3  # the prompt with the first token, and each of those behind it


def test_once_all_captions_are_finished_no_step_is_taken(checkpoint, monkeypatch):
    steps = Steps()
    captioning = Captioning(checkpoint, steps, min_length=20)
    for _ in range(2):
        captioning.captured(range(6))
    looks = iter([True, False])
    monkeypatch.setattr(DecodingState, "shrink", lambda self, step: next(looks))
    before = steps.replayed
    captioning.captured(range(6))
    assert steps.replayed - before == 2


def test_what_is_given_to_a_step_may_have_another_shape_each_time():
    steps = Steps()
    runner = GraphRunner(lambda batch: batch * 2, lambda: steps)
    captured = []
    for number, rows in enumerate((3, 5, 3, 5, 3)):
        state = runner.start(torch.full((4,), float(number)))
        given = torch.full((rows,), 1.0 + number)
        assert runner.go_on(add, state, (given, 10)).tolist() == [2.0 * number + 1 + number + 10] * rows
        assert state.tolist() == [2.0 * number] * 4
        captured.append(steps.captured)
    assert captured == [1, 1, 2, 3, 3]  # each shape when it is met again


def test_steps_of_too_many_shapes_are_forgotten(monkeypatch):
    monkeypatch.setattr("capfilt.med.graphs.MAX_GRAPHS", 2)
    monkeypatch.setattr("capfilt.med.graphs.MAX_SHAPES", 3)
    steps = Steps()
    runner = GraphRunner(lambda batch: batch, lambda: steps)
    state = runner.start(torch.ones(4))
    captured = []
    for rows in (1, 2, 3, 1, 2, 3, 3, 1, 4, 1):
        runner.go_on(add, state, (torch.ones(rows), 0))
        captured.append(steps.captured - 1)
    assert captured == [0, 0, 0, 1, 2, 3, 3, 4, 4, 4]


def test_without_graphs_steps_are_taken_as_they_are():
    runner = GraphRunner(lambda batch: batch + 1, None)
    state = runner.start(torch.zeros(2))
    assert state.tolist() == [1, 1]
    assert runner.go_on(add, state, (torch.ones(1), 5)).tolist() == [7]


def test_a_step_that_finds_no_memory_gives_back_what_the_batch_holds():
    steps, room = Steps(), [4]

    def fill(state: torch.Tensor, given: int) -> torch.Tensor:
        if len(state) > room[0]:
            raise torch.OutOfMemoryError
        return state + given

    runner = GraphRunner(lambda batch: batch.clone(), lambda: steps)
    in_parts = InParts(lambda batch: runner.go_on(fill, runner.start(batch), 1).tolist())
    for _ in range(3):
        assert in_parts(torch.arange(8.0)) == list(range(1, 9))
    assert steps.captured == 1 + 2  # the start of eight, then that of four with its step


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("CUDA error: out of memory")])
@pytest.mark.parametrize("fails", ["start", "step"])
def test_a_smaller_batch_that_finds_no_memory_gives_back_what_whole_ones_hold(fails, error):
    """From then on parts are the whole batches: they are captured, and the tensors of larger ones are not kept."""
    steps, room = Steps(), {"start": 8, "step": 8}

    def check(place: str, rows: int) -> None:
        if rows > room[place]:
            raise error

    def first(batch: torch.Tensor) -> torch.Tensor:
        check("start", len(batch))
        return batch.clone()

    def add_one(state: torch.Tensor, _: int) -> torch.Tensor:
        check("step", len(state))
        return state + 1

    runner = GraphRunner(first, lambda: steps)
    in_parts = InParts(lambda batch: runner.go_on(add_one, runner.start(batch), 0).tolist())
    assert in_parts(torch.arange(8.0)) == list(range(1, 9))
    room[fails] = 3
    assert in_parts(torch.arange(6.0)) == list(range(1, 7))
    before = steps.replayed
    assert in_parts(torch.arange(6.0)) == list(range(1, 7))
    assert steps.replayed > before


@pytest.mark.parametrize("make", [torch.OutOfMemoryError, lambda: RuntimeError("CUDA error: out of memory")])
@pytest.mark.parametrize("fails_at", [1, 2], ids=["taken", "captured"])
def test_what_was_captured_goes_while_no_other_thread_captures(make, fails_at):
    """The traceback of an error holds it as well; torch fails where a graph goes while another is captured."""
    alone: list[bool] = []
    steps = count(1)

    class Graph:
        def __init__(self) -> None:
            finalize(self, lambda: alone.append(ALONE.locked()))

    def capture(step: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        return step(), partial(lambda graph: None, Graph())

    def fail(state: torch.Tensor, given: int) -> list[int]:
        if next(steps) == fails_at:
            raise make()
        return [given]

    runner = GraphRunner(lambda batch: batch.clone(), lambda: capture)
    in_parts = InParts(lambda batch: runner.go_on(fail, runner.start(batch), 1))
    for _ in range(fails_at - 1):
        in_parts(torch.arange(1.0))
    with pytest.raises(torch.OutOfMemoryError):
        in_parts(torch.arange(1.0))
    assert alone == [True]


def test_a_graph_is_captured_on_the_stream_of_its_thread_after_a_call_without_it(monkeypatch):
    """torch's own class tells which arguments it takes; what it does needs a GPU."""
    begin, graph = create_autospec(torch.cuda.graph), Mock()
    monkeypatch.setattr("torch.cuda.graph", begin)
    for name, found in (("CUDAGraph", graph), ("graph_pool_handle", "pool"), ("current_stream", "stream")):
        monkeypatch.setattr(f"torch.cuda.{name}", Mock(return_value=found))
    alone: list[bool] = []
    result, replay = graph_capture()(lambda: alone.append(ALONE.locked()) or len(alone))
    assert (alone, result, replay) == ([False, True], 2, graph.replay)
    begin.assert_called_once_with(graph, "pool", "stream", capture_error_mode="thread_local")


def add(state: torch.Tensor, given: tuple[torch.Tensor, int]) -> torch.Tensor:
    return state[0] + given[0] + given[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_graphs_on_a_gpu_give_the_captions_of_steps_without(tmp_path):
    checkpoint = lively_checkpoint(tmp_path)
    checkpoint.model.to("cuda")
    captioning = Captioning(checkpoint, device="cuda")
    with own_stream("cuda"):
        for first in (0, 6, 0):
            numbers = range(first, first + 6)
            same(captioning.captured(numbers), captioning.plain(numbers))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.inference_mode()
def test_pixels_may_go_while_another_thread_captures(tmp_path):
    """An event on a stream that is captured would fail whoever asks for pinned memory next."""
    device = Device(kind="cuda", dtype="float32", linear="plain")
    encoder = ImageEncoder(ready(lively_checkpoint(tmp_path).model, device), device)
    pixels = [torch.zeros((2, 3, 32, 32), dtype=torch.uint8, pin_memory=True)]

    def step() -> torch.Tensor:
        if torch.cuda.is_current_stream_capturing():
            other = Thread(target=pixels.clear)
            other.start()
            other.join()
        return one + 1

    with own_stream("cuda"):
        encoder(pixels[0])
        one = torch.ones(1, device="cuda")
        graph_capture()(step)
    assert not pixels
    assert torch.empty(1, pin_memory=True).is_pinned()
