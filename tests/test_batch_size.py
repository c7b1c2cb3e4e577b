"""The batch size that a trial finds, with models that tell the time themselves."""

import pytest
from fakes import ColourCaptioner, ColourFilter

from capfilt.batch_size import MAX_BATCH, MIN_BATCH, WEB_TEXT, find_batch_size
from capfilt.bootstrap import CapFilt
from capfilt.turns import Turns


class Timed(ColourCaptioner):
    """A captioner that takes some seconds for a call and some for an image, of a time of its own."""

    def __init__(self, call: float, image: float, room: int = MAX_BATCH, first: float = 0.0) -> None:
        super().__init__()
        self.cost, self.room, self.first, self.now = (call, image), room, first, 0.0

    def write(self, pixels, noise):
        call, image = self.cost
        parts = -(-len(pixels) // self.room)  # as often as a batch of this size is computed in parts
        self.now += self.first + parts * call + len(pixels) * image
        self.first = 0.0
        return super().write(pixels, noise)


def found(captioner: Timed) -> int:
    return find_batch_size(CapFilt(captioner, ColourFilter()), lambda: captioner.now)


@pytest.mark.parametrize(
    ("call", "image", "size"),
    [
        (1.0, 0.0, MAX_BATCH),  # the more, the better
        (0.0, 0.1, MIN_BATCH),  # all the same
        (0.001, 0.001, 32),  # 32 images take 33 ms, 64 take 65 ms: 1.5 % more a second
        (9.0, 0.0, MIN_BATCH),  # so slow that no device can be idle
    ],
)
def test_a_batch_is_doubled_while_that_pays(call, image, size):
    assert found(Timed(call, image)) == size


def test_a_batch_that_does_not_fit_is_not_taken():
    assert found(Timed(0.1, 0.0001, room=64)) == 64


def test_what_happens_once_in_a_worker_is_not_counted():
    assert found(Timed(1.0, 0.0, first=60.0)) == MAX_BATCH


def test_on_a_gpu_both_models_have_to_fit_at_once():
    captioner, judge = Timed(1.0, 0.0), ColourFilter()
    models = CapFilt(captioner, judge, Turns(apart=True))
    assert find_batch_size(models, lambda: captioner.now) == MAX_BATCH
    together = [len(texts) for texts in judge.texts if texts == [[WEB_TEXT] * 2] * len(texts)]
    assert together == [8, 16, 32, 64, 128, 256, 512]


def test_on_a_gpu_the_filter_gets_a_batch_that_was_captioned_before(monkeypatch):
    """As in a run: where both models have one tower, what the captioner has seen is handed on, and must be complete."""
    monkeypatch.setattr("capfilt.batch_size.MAX_BATCH", MIN_BATCH)
    captioner, judge, captioned = ColourCaptioner(delay=0.05), ColourFilter(), []
    write, read = captioner.write, judge.judge

    def note(pixels, noise):
        found = write(pixels, noise)
        captioned.append(pixels)
        return found

    def look(pixels, texts):
        assert any(pixels is each for each in captioned)
        return read(pixels, texts)

    monkeypatch.setattr(captioner, "write", note)
    monkeypatch.setattr(judge, "judge", look)
    find_batch_size(CapFilt(captioner, judge, Turns(apart=True)))


def test_on_a_gpu_what_a_size_costs_once_is_not_counted():
    """Graphs are recorded for each size."""

    met: set[int] = set()

    class Recording(Timed):
        def write(self, pixels, noise):
            self.now += 0.0 if len(pixels) in met else 60.0
            met.add(len(pixels))
            return super().write(pixels, noise)

    captioner = Recording(1.0, 0.0)
    models = CapFilt(captioner, ColourFilter(), Turns(apart=True))
    assert find_batch_size(models, lambda: captioner.now) == MAX_BATCH


def test_the_trial_counts_the_filter_too():
    captioner, judge = Timed(1.0, 0.0), ColourFilter()
    find_batch_size(CapFilt(captioner, judge), lambda: captioner.now)
    assert all(len(group) == 2 for texts in judge.texts for group in texts)
    assert max(len(texts) for texts in judge.texts) == MAX_BATCH
