"""Where the numbers of a run go: its folder, a picture, TensorBoard and Weights & Biases."""

import json
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from lessons import Lesson, attend

from capfilt.config.training import Tracking
from capfilt.errors import ConfigError
from capfilt.storage import exists, list_files, publish, read_bytes
from capfilt.training.folder import TrainingRun
from capfilt.training.tracking import Tracker, run_id


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    return Lesson(output=str(tmp_path / "run"), objective="pretraining")


def test_the_curve_of_the_whole_run_lies_in_its_folder(lesson):
    run = attend(lesson)
    root = ElementTree.fromstring(Path(run.folder, "curve.svg").read_text())
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "run"
    assert [text.split()[0] for text in texts[-3:]] == ["lm", "itc", "itm"]


def test_a_resumed_run_that_has_no_line_yet_keeps_its_picture_and_needs_no_metrics(lesson):
    """A state may be due before the next line."""
    run = attend(lesson)
    picture = Path(run.folder, "curve.svg").read_bytes()
    Path(run.metrics).unlink()
    Tracker(run, Tracking(tensorboard=False), 25).draw()
    assert Path(run.folder, "curve.svg").read_bytes() == picture


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

    def test_steps_that_are_taken_again_take_the_place_of_those_before(self, lesson):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        run = TrainingRun(lesson.output, lesson)
        for start, loss in ((0, 1.0), (10, 2.0)):
            tracker = Tracker(run, Tracking(), start)
            for step in range(start, 30, 10):
                tracker.add(step, ["lm"], {"lm": loss})
            tracker.close()
            (newest,) = Path(run.folder, "tensorboard").glob("events.*")
            newest.rename(newest.with_name(f"{start:02d}.{newest.name}"))  # of one second, files have no order
        events = EventAccumulator(f"{run.folder}/tensorboard").Reload().Scalars("lm")
        assert [(event.step, event.value) for event in events] == [(0, 1.0), (10, 2.0), (20, 2.0)]

    def test_of_a_folder_on_a_store_they_are_sent_as_its_other_files_are(self, lesson, tmp_path, monkeypatch):
        """Not by TensorBoard's own client, which asks a store with other settings, and for seconds alone."""
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

        asked: list[str] = []

        def noted(path: str, data: bytes) -> None:
            asked.append(path)
            publish(path, data)

        monkeypatch.setattr("capfilt.training.tracking.publish", noted)
        tracker = Tracker(TrainingRun(f"memory:/{tmp_path}", lesson), Tracking(), 0)
        for step in range(3):
            tracker.add(step, ["lm"], {"lm": 1.0})
            tracker.flush()
        tracker.close()

        (name,) = list_files(f"memory:/{tmp_path}/tensorboard")
        assert set(asked) == {f"memory:/{tmp_path}/tensorboard/{name}"}
        Path(tmp_path, name).write_bytes(read_bytes(f"memory:/{tmp_path}/tensorboard/{name}"))
        steps = [event.step for event in EventFileLoader(str(tmp_path / name)).Load() if event.summary.value]
        assert steps == [0, 1, 2]

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

    def test_a_training_is_the_same_by_whatever_path_and_another_in_another_folder(self, tmp_path, monkeypatch):
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        here = run_id("runs/med")
        assert here == run_id(f"{tmp_path}/runs/med")
        monkeypatch.chdir(tmp_path / "other")
        assert run_id("runs/med") != here

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


def test_lines_wait_the_longer_on_an_object_store_the_longer_a_run_is_at_work(lesson, monkeypatch, tmp_path):
    now = [0.0]
    monkeypatch.setattr("capfilt.training.tracking.time", SimpleNamespace(monotonic=lambda: now[0]))
    run = TrainingRun(f"memory:/{tmp_path}", lesson)
    tracker = Tracker(run, Tracking(tensorboard=False), 0)
    written = []
    for step in range(2_000):
        now[0] = 11.0 * step
        tracker.add(step, ["lm"], {"lm": 1.0})
        written.append(read_bytes(run.metrics).count(b"\n") if exists(run.metrics) else 0)
    assert written[90] == 91  # within the first quarter of an hour, as on a disk
    assert len(set(written[1_000:])) < 80  # of 1,000 lines
    tracker.flush()
    assert len(run.read_metrics()) == 2_000
