"""What a run writes down about itself: lines, a picture, events, and nothing that slows it."""

import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from lessons import Lesson, attend, metrics

from capfilt.config.training import Tracking
from capfilt.errors import ConfigError
from capfilt.training.curve import POINTS, draw
from capfilt.training.folder import TrainingRun
from capfilt.training.tracking import Tracker

PRETRAINING = ["itc", "lm", "temperature", "queue_age"]
ALWAYS = ["step", "learning_rate", "gradient_norm", "samples_per_second", "memory_gib"]


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    return Lesson(output=str(tmp_path / "run"), objective="pretraining")


class TestLines:
    def test_they_hold_every_tenth_step_and_the_last_with_all_that_training_depends_on(self, lesson):
        lines = attend(lesson).read_metrics()
        assert [line["step"] for line in lines] == [0, 10, 20, 24]
        assert [sorted(line) for line in lines] == [
            sorted([*ALWAYS, *PRETRAINING, *(["itm"] if step >= 5 else [])]) for step in (0, 10, 20, 24)
        ]

    def test_the_queue_is_as_old_as_the_steps_that_fill_it(self, lesson):
        """A queue of 16 holds the features of four steps of 4 images."""
        lesson = lesson.planned(steps=8).model_copy(update={"tracking": Tracking(every=1, tensorboard=False)})
        assert [line["queue_age"] for line in metrics(attend(lesson))] == [1, 2, 3, 4, 4, 4, 4, 4]

    def test_a_captioner_has_neither_temperature_nor_queue(self, lesson):
        (line, *_) = attend(lesson.model_copy(update={"objective": "captioning"})).read_metrics()
        assert sorted(line) == sorted([*ALWAYS, "lm"])

    def test_the_speed_is_that_of_the_samples_since_the_line_before(self, lesson, monkeypatch):
        clock = iter(range(10**6))
        monkeypatch.setattr("capfilt.training.watch.time", SimpleNamespace(monotonic=lambda: next(clock)))
        lesson = lesson.planned(steps=12).model_copy(update={"objective": "captioning"})
        assert [line["samples_per_second"] for line in attend(lesson).read_metrics()] == [4.0, 40.0, 4.0]

    def test_they_are_written_before_the_state_that_follows_them(self, lesson, monkeypatch):
        """Else a kill could leave a state behind and lose the lines that led to it."""
        found = []
        real = TrainingRun.save

        def look(run: TrainingRun, state: dict) -> None:
            found.append([line["step"] for line in run.read_metrics()])
            real(run, state)

        monkeypatch.setattr(TrainingRun, "save", look)
        attend(lesson)
        assert found == [[0], [0, 10]]


class TestPicture:
    def test_the_curve_of_the_whole_run_lies_in_its_folder(self, lesson):
        run = attend(lesson)
        root = ElementTree.fromstring(Path(run.folder, "curve.svg").read_text())
        texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        assert texts[0] == "run"
        assert [text.split()[0] for text in texts[-3:]] == ["lm", "itc", "itm"]

    def test_lines_begin_at_the_left_and_the_highest_loss_touches_the_top(self):
        root = ElementTree.fromstring(draw({"lm": [(0, 4.0), (50, 2.0), (100, 0.0)]}, "x"))
        (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
        assert line.get("points") == "56.0,32.0 340.0,196.0 624.0,360.0"

    def test_a_long_run_is_drawn_with_few_points_at_the_mean_of_its_neighbours(self):
        root = ElementTree.fromstring(draw({"lm": [(step, step % 2 * 2.0) for step in range(8000)]}, "x"))
        (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
        points = [point.split(",") for point in line.get("points").split()]
        assert len(points) == POINTS
        assert {y for _, y in points} == {"196.0"}

    def test_a_name_cannot_break_the_picture(self):
        assert ElementTree.fromstring(draw({"a<b": [(0, 1.0)]}, "x & y")) is not None

    def test_a_run_without_lines_has_empty_axes(self):
        assert "polyline" not in draw({}, "x")


class TestTensorBoard:
    def test_every_number_is_an_event_of_its_step(self, lesson):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = attend(lesson.model_copy(update={"tracking": Tracking()}))
        events = EventAccumulator(f"{run.folder}/tensorboard").Reload()
        lines = run.read_metrics()
        assert [event.step for event in events.Scalars("lm")] == [0, 10, 20, 24]
        assert [event.value for event in events.Scalars("lm")] == pytest.approx([line["lm"] for line in lines])
        assert set(events.Tags()["scalars"]) == set(lines[-1]) - {"step"}

    def test_without_the_package_a_run_goes_without_it(self, lesson, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        run = attend(lesson.model_copy(update={"tracking": Tracking()}))
        assert not Path(run.folder, "tensorboard").exists()


class TestWeightsAndBiases:
    def test_offline_the_run_lies_in_its_folder(self, lesson):
        pytest.importorskip("wandb")
        tracking = Tracking(tensorboard=False, wandb="offline")
        run = attend(lesson.planned(steps=2).model_copy(update={"tracking": tracking}))
        assert list(Path(run.folder, "wandb").glob("offline-run-*/run-*.wandb"))

    def test_without_the_package_the_remedy_is_told(self, lesson, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"tracking\.wandb: .* is not installed; pip install 'capfilt\[wandb\]'"):
            Tracker(TrainingRun(lesson.output, lesson), Tracking(wandb="online"), 0)


def test_lines_wait_until_they_are_worth_a_write(lesson, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("capfilt.training.tracking.time", SimpleNamespace(monotonic=lambda: now[0]))
    run = TrainingRun(lesson.output, lesson)
    tracker = Tracker(run, Tracking(tensorboard=False), 0)
    tracker.add(0, ["lm"], {"lm": 1.0})
    assert not Path(run.metrics).exists()
    now[0] = 11.0
    tracker.add(1, ["lm"], {"lm": 2.0})
    assert json.loads(Path(run.metrics).read_text().splitlines()[1]) == {"step": 1, "lm": 2.0}
