"""The numbers of a run: which are written down, when, and what they say."""

import io
import resource
import sys
from types import SimpleNamespace

import pytest
from lessons import Lesson, attend, metrics

from capfilt.config.training import Tracking
from capfilt.training.folder import TrainingRun

PRETRAINING = ["itc", "lm", "temperature", "queue_age"]
ALWAYS = ["step", "learning_rate", "gradient_norm", "samples_per_second", "memory_gib"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    return Lesson(output=str(tmp_path / "run"), objective="pretraining")


def test_they_hold_every_tenth_step_and_the_last_with_all_that_training_depends_on(lesson):
    lines = attend(lesson).read_metrics()
    assert [line["step"] for line in lines] == [0, 10, 20, 24]
    assert [sorted(line) for line in lines] == [
        sorted([*ALWAYS, *PRETRAINING, *(["itm"] if step >= 5 else [])]) for step in (0, 10, 20, 24)
    ]


def test_the_queue_is_as_old_as_the_steps_that_fill_it(lesson):
    """A queue of 16 holds the features of four steps of 4 images."""
    lesson = lesson.planned(steps=8).model_copy(update={"tracking": Tracking(every=1, tensorboard=False)})
    assert [line["queue_age"] for line in metrics(attend(lesson))] == [1, 2, 3, 4, 4, 4, 4, 4]


def test_a_queue_that_a_part_of_a_step_fills_is_from_the_step_before_when_the_next_one_begins(lesson):
    """A queue of 16 holds the features of two of the three parts of a step of 24 images."""
    lesson = lesson.planned(steps=3, batch_size=24, accumulation=3)
    lesson = lesson.model_copy(update={"tracking": Tracking(every=1, tensorboard=False)})
    assert [line["queue_age"] for line in metrics(attend(lesson))] == [1, 1, 1]


def test_a_captioner_has_neither_temperature_nor_queue(lesson):
    (line, *_) = attend(lesson.model_copy(update={"objective": "captioning"})).read_metrics()
    assert sorted(line) == sorted([*ALWAYS, "lm"])


def test_the_speed_is_that_of_the_samples_since_the_line_before(lesson, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("capfilt.training.watch.time", SimpleNamespace(monotonic=lambda: next(clock)))
    lesson = lesson.planned(steps=12).model_copy(update={"objective": "captioning"})
    assert [line["samples_per_second"] for line in attend(lesson).read_metrics()] == [4.0, 40.0, 4.0]


def test_small_rates_have_as_many_digits_as_large_losses(lesson):
    lesson = lesson.planned(steps=1, warmup_steps=0, learning_rate=1.23456789e-7)
    (line,) = attend(lesson).read_metrics()
    assert line["learning_rate"] == 1.2346e-7
    assert line["lm"] == round(line["lm"], 5) > 1


def test_the_memory_is_that_of_the_process_in_gib(lesson):
    """The lesson is for a CPU, also on a machine with a GPU."""
    line = attend(lesson.planned(steps=1)).read_metrics()[-1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30
    assert line["memory_gib"] == pytest.approx(peak, rel=0.5)


def test_the_progress_of_a_resumed_run_begins_where_it_goes_on(lesson, monkeypatch):
    """25 steps of 4 images, the first 20 of them taken before."""
    monkeypatch.setattr(TrainingRun, "finish", lambda run, write: None)  # as a kill before it would, it leaves a state
    attend(lesson)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    attend(lesson)
    (first, *_, last) = terminal.getvalue().split("\r")[1:]
    assert "80/100" in first
    assert "100/100" in last


def test_they_are_written_before_the_state_that_follows_them(lesson, monkeypatch):
    """Else a kill could leave a state behind and lose the lines that led to it."""
    found = []
    real = TrainingRun.save

    def look(run: TrainingRun, state: dict) -> None:
        found.append([line["step"] for line in run.read_metrics()])
        real(run, state)

    monkeypatch.setattr(TrainingRun, "save", look)
    attend(lesson)
    assert found == [[0], [0, 10]]
