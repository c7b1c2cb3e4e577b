"""A training run's folder: settings that bind and settings that do not, states that survive, on any storage."""

import signal
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from shutil import rmtree
from typing import Any, BinaryIO

import pytest
import torch
from disks import files_of
from lessons import Lesson, attend

from capfilt.config import loads
from capfilt.config.training import FinetuneConfig, Schedule, Tracking, TrainingDevice
from capfilt.errors import RunError
from capfilt.storage import list_files, read_bytes, staged
from capfilt.training.folder import TrainingRun


class Killed(BaseException):
    """Ends a run at some place, as a kill would."""


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    return Lesson(output=str(tmp_path / "run"))


def state(step: int) -> dict[str, object]:
    return {"step": step, "objective": {"weight": torch.full((2,), float(step))}}


def begun(lesson: Lesson) -> TrainingRun:
    run = TrainingRun(lesson.output, lesson)
    run.begin()
    return run


def test_a_run_that_is_only_named_leaves_no_trace(lesson):
    run = TrainingRun(lesson.output, lesson)
    assert (run.check(), run.finished, run.newest) == (False, False, 0)
    assert not Path(lesson.output).exists()


def test_its_name_is_that_of_its_folder(lesson):
    names = [TrainingRun(path, lesson).name for path in ("run", "/runs/med/", "s3://bucket/filter")]
    assert names == ["run", "med", "filter"]


@pytest.mark.parametrize("act", [TrainingRun.begin, TrainingRun.check])
def test_the_folder_of_a_bootstrap_is_refused_and_left_as_it_is(lesson, act):
    Path(lesson.output).mkdir()
    Path(lesson.output, "run.yaml").touch()

    with pytest.raises(RunError, match="holds a bootstrap's run; choose another output folder"):
        act(TrainingRun(lesson.output, lesson))
    assert [file.name for file in Path(lesson.output).iterdir()] == ["run.yaml"]


class TestSettings:
    def test_others_are_refused_with_the_first_that_differs(self, lesson):
        begun(lesson).save(state(10))
        other = lesson.planned(learning_rate=1e-4).model_copy(update={"seed": 4})
        with pytest.raises(
            RunError, match=r"config\.yaml: holds 'learning_rate: 0\.003' where 'learning_rate: 0\.0001'"
        ):
            begun(other)

    def test_a_slip_that_kept_a_run_from_starting_can_be_mended_in_its_folder(self, lesson):
        run = begun(lesson)
        Path(run.shards).write_bytes(b"of the wrong folder")
        other = lesson.planned(learning_rate=1e-4)
        begun(other).save(state(10))
        assert not Path(run.shards).exists()
        begun(other)
        with pytest.raises(RunError, match=r"holds 'learning_rate: 0\.0001'"):
            begun(lesson)

    def test_those_of_another_job_give_way_while_nothing_is_learned_and_are_refused_then(self, lesson):
        Path(lesson.output).mkdir()
        settings = Path(lesson.output, "config.yaml")
        settings.write_text("role: captioner\n")

        run = begun(lesson)
        assert loads(Lesson, settings.read_text(), "config.yaml") == lesson

        run.save(state(10))
        settings.write_text("role: captioner\n")
        with pytest.raises(
            RunError, match=r"output: is missing; it is of another job or version: .*another output folder"
        ):
            begun(lesson)
        assert settings.read_text() == "role: captioner\n"

    def test_those_that_only_say_how_it_runs_may_change(self, lesson):
        begun(lesson)
        device = TrainingDevice(kind="cpu", threads=2, recompute_vision=3, recompute_text=1, compile=True)
        changes = {"device": device, "tracking": Tracking(every=5, wandb="offline")}
        begun(lesson.planned(checkpoint_steps=3).model_copy(update=changes))

    def test_the_precision_of_the_products_may_not(self, lesson):
        begun(lesson).note([{"step": 0, "lm": 1.0}])
        other = lesson.model_copy(update={"device": TrainingDevice(kind="cpu", dtype="bfloat16", threads=1)})
        with pytest.raises(RunError, match="holds 'dtype: auto' where 'dtype: bfloat16' was given"):
            begun(other)

    def test_a_checkpoint_is_the_same_in_whatever_words(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        plan = Schedule(epochs=1, learning_rate=1e-3)
        filter_ = FinetuneConfig(role="filter", checkpoint="med", output="run", data={"shards": ["web"]}, schedule=plan)
        begun(filter_).save(state(10))
        begun(filter_.model_copy(update={"checkpoint": f"{tmp_path}/med"}))
        with pytest.raises(RunError, match=rf"holds 'checkpoint: {tmp_path}/med' where 'checkpoint: {tmp_path}/other'"):
            begun(filter_.model_copy(update={"checkpoint": "other"}))

    def test_so_is_the_one_whose_vision_tower_is_taken(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        settings = {"role": "filter", "checkpoint": "med", "output": "run", "data": {"shards": ["web"]}}
        filter_ = FinetuneConfig(**settings, schedule=Schedule(epochs=1), vision_from="captioner/checkpoint")
        begun(filter_).save(state(10))
        begun(filter_.model_copy(update={"vision_from": f"{tmp_path}/captioner/checkpoint"}))

    @pytest.mark.parametrize("path", ["{folder}/web", "./web/", "run/../web", "file://{folder}/web"])
    def test_so_are_the_shards_of_a_source(self, tmp_path, monkeypatch, path):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "run").mkdir()
        settings = {"role": "filter", "checkpoint": "med", "output": "run", "schedule": Schedule(epochs=1)}
        path = path.format(folder=tmp_path)
        for ours, same, other in (
            ({"shards": ["web"]}, {"shards": [path]}, {"shards": ["more"]}),
            *(({"sources": [{"shards": [it], "weight": 1}]} for it in ("web", path, "more")),),
        ):
            begun(FinetuneConfig(**settings, data=ours)).save(state(10))
            begun(FinetuneConfig(**settings, data=same))
            with pytest.raises(RunError, match=rf"holds '- {tmp_path}/web' where '- {tmp_path}/more' was given"):
                begun(FinetuneConfig(**settings, data=other))
            rmtree(tmp_path / "run")

    def test_several_paths_of_a_source_keep_their_words_by_which_its_shards_are_ordered(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        settings = {"role": "filter", "checkpoint": "med", "output": "run", "schedule": Schedule(epochs=1)}
        begun(FinetuneConfig(**settings, data={"shards": ["web", "/more"]})).save(state(10))
        with pytest.raises(RunError, match=rf"holds '- web' where '- {tmp_path}/web' was given"):
            begun(FinetuneConfig(**settings, data={"shards": [f"{tmp_path}/web", "/more"]}))

    def test_others_are_refused_by_a_finished_run_that_has_lost_its_metrics(self, lesson):
        run = begun(lesson)
        run.finish(lambda folder: (folder.mkdir(), (folder / "config.json").touch()))
        with pytest.raises(RunError, match=r"config\.yaml: holds 'learning_rate: 0\.003'"):
            begun(lesson.planned(learning_rate=1e-4))

    def test_a_run_that_has_lost_them_goes_on_with_its_shards(self, lesson):
        run = begun(lesson)
        run.save(state(10))
        Path(run.shards).write_bytes(b"those of its start")
        Path(lesson.output, "config.yaml").unlink()
        begun(lesson)
        assert Path(run.shards).read_bytes() == b"those of its start"

    def test_their_file_is_left_alone_by_a_second_start(self, lesson):
        settings = Path(begun(lesson).folder, "config.yaml")
        before = settings.stat().st_mtime_ns, settings.read_bytes()
        begun(lesson.planned(checkpoint_steps=3))
        assert (settings.stat().st_mtime_ns, settings.read_bytes()) == before

    def test_a_kill_while_they_are_written_leaves_none(self, lesson, monkeypatch):
        monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            begun(lesson)
        monkeypatch.undo()
        assert not Path(lesson.output, "config.yaml").exists()
        assert not begun(lesson).finished

    @pytest.mark.parametrize(
        ("lengths", "found"), [({}, "neither"), ({"steps": 1, "epochs": 2}, "steps: 1 and epochs: 2")]
    )
    def test_a_schedule_has_one_length(self, lengths, found):
        with pytest.raises(ValueError, match=rf"give either steps or epochs \(found {found}\)"):
            Schedule(**lengths)


class TestStates:
    def test_the_last_two_are_kept(self, lesson):
        run = TrainingRun(lesson.output, lesson)
        for step in (10, 20, 300):
            run.save(state(step))
        assert list_files(f"{run.folder}/states") == ["000000020.pt", "000000300.pt"]
        assert run.newest == 300
        assert run.restore()["objective"]["weight"].tolist() == [300.0, 300.0]

    @pytest.mark.parametrize("name", ["000-notes.txt", "000000005.pt.bak"])
    def test_a_file_of_somebody_beside_them_is_left_alone(self, lesson, name):
        run = begun(lesson)
        run.save(state(5))
        notes = Path(lesson.output, "states", name)
        notes.write_text("the second one is the better")
        run.save(state(10))

        assert (run.newest, notes.exists()) == (10, True)
        assert {file.name for file in notes.parent.iterdir()} == {name, "000000005.pt", "000000010.pt"}

    def test_a_run_without_any_begins(self, lesson):
        run = TrainingRun(lesson.output, lesson)
        assert (run.restore(), run.newest) == (None, 0)

    @pytest.mark.parametrize("damage", [b"", b"half a st", None])
    def test_the_one_before_serves_when_the_newest_is_damaged(self, lesson, caplog, damage):
        run = TrainingRun(lesson.output, lesson)
        run.save(state(10))
        run.save(state(20))
        newest = Path(run.folder, "states", "000000020.pt")
        newest.write_bytes(newest.read_bytes()[:-100] if damage is None else damage)
        assert run.restore()["step"] == 10
        assert "000000020.pt: is damaged" in caplog.text

    def test_one_that_the_disk_does_not_hand_out_is_not_damaged(self, lesson, caplog):
        run = TrainingRun(lesson.output, lesson)
        run.save(state(10))
        run.save(state(20))
        newest = Path(run.folder, "states", "000000020.pt")
        newest.unlink()
        newest.symlink_to("/proc/self/mem")  # of which Linux cannot read the beginning
        with pytest.raises(OSError, match="Input/output error"):
            run.restore()
        assert "damaged" not in caplog.text

    def test_a_damaged_one_gives_way_to_the_states_of_the_steps_taken_again(self, lesson):
        run = TrainingRun(lesson.output, lesson)
        run.save(state(10))
        run.save(state(40))
        Path(run.folder, "states", "000000040.pt").write_bytes(b"half a st")
        for step in (20, 30):  # states may be written more often from now on
            run.save(state(step))
        assert list_files(f"{run.folder}/states") == ["000000020.pt", "000000030.pt"]
        assert (run.newest, run.restore()["step"]) == (30, 30)

    def test_a_kill_while_one_is_written_leaves_those_before(self, lesson, monkeypatch):
        run = TrainingRun(lesson.output, lesson)
        run.save(state(10))

        def cut(values: object, file: BinaryIO) -> None:
            file.write(b"half a st")
            raise Killed

        monkeypatch.setattr(torch, "save", cut)
        with pytest.raises(Killed):
            run.save(state(20))
        assert run.restore()["step"] == 10

    @pytest.mark.usefixtures("in_front")
    def test_a_signal_while_one_is_written_is_not_taken_for_an_error_of_torch(self, lesson, monkeypatch):
        """Raised in a call of torch's, it comes out as an error of torch, or ends the process."""

        class Signalling(BytesIO):
            writes = 0

            def write(self, data: Any) -> int:
                self.writes += 1
                if self.writes == 2:
                    signal.raise_signal(signal.SIGINT)
                return super().write(data)

        run = TrainingRun(lesson.output, lesson)
        monkeypatch.setattr(Path, "open", lambda *_: Signalling())
        with pytest.raises(KeyboardInterrupt):
            run.save(state(10))
        assert list(Path(run.folder, "states").iterdir()) == []

    def test_what_a_kill_left_half_written_goes_before_the_next_is_written(self, lesson):
        run = TrainingRun(lesson.output, lesson)
        run.save(state(10))
        left = Path(run.folder, "states", f".{'0f' * 16}.partial")
        left.write_bytes(b"half a st")
        run.save(state(20))
        assert not left.exists()

    @pytest.mark.parametrize("numbers", [10**4, 10**6])
    def test_a_disk_that_takes_no_more_is_told_with_the_file(self, lesson, numbers):
        """torch itself tells only that the file ends too early."""
        run = TrainingRun(lesson.output, lesson)
        with files_of(1 << 10), pytest.raises(OSError, match=r"File too large: '.*states/000000010\.pt'"):
            run.save(state(10) | {"source": torch.zeros(numbers)})
        assert list(Path(run.folder, "states").iterdir()) == []


class TestCheckpoint:
    def test_a_kill_while_it_is_written_is_made_good(self, lesson, monkeypatch):
        def die(*_: object, **__: object) -> None:
            raise Killed

        monkeypatch.setattr("capfilt.med.checkpoints.publish", die)  # of config.json, the last file
        with pytest.raises(Killed):
            attend(lesson)
        monkeypatch.undo()
        run = TrainingRun(lesson.output, lesson)
        assert Path(run.checkpoint, "model.safetensors").exists()
        assert not run.finished
        assert attend(lesson).finished

    def test_a_kill_once_it_is_whole_leaves_no_state_behind_for_ever(self, lesson, monkeypatch):
        def die(folder: str) -> None:
            raise Killed

        monkeypatch.setattr("capfilt.training.folder.remove_folder", die)  # of the states, behind the checkpoint
        with pytest.raises(Killed):
            attend(lesson)
        monkeypatch.undo()
        run = TrainingRun(lesson.output, lesson)
        assert run.finished
        assert list_files(f"{run.folder}/states")
        begun(lesson)
        assert run.finished
        assert not Path(run.folder, "states").exists()

    def test_what_a_kill_left_half_written_of_it_goes(self, lesson):
        left = Path(lesson.output, "checkpoint", f".{'0f' * 16}.partial")
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half of the weights")
        run = attend(lesson)
        assert run.finished
        assert not left.exists()


class TestStore:
    """An object store, here in memory, holds a run as a disk does."""

    def test_a_run_trains_there_to_the_same_weights(self, lesson, tmp_path):
        store = lesson.model_copy(update={"output": "memory://runs/away", "words": str(tmp_path / "words")})
        away, here = attend(store), attend(lesson)
        for name in ("checkpoint/model.safetensors", "checkpoint/config.json", "checkpoint/vocab.txt"):
            assert read_bytes(f"{away.folder}/{name}") == read_bytes(f"{here.folder}/{name}")
        assert away.finished
        assert [line["step"] for line in away.read_metrics()] == [0, 10, 20, 24]
        assert list_files(f"{away.folder}/states") == []

    def test_a_kill_while_the_checkpoint_is_sent_there_leaves_none(self, lesson, monkeypatch):
        """Whichever file it meets: config.json, which means done, goes last."""

        def write(folder: Path) -> None:
            for name in ("config.json", "model.safetensors", "vocab.txt"):
                (folder / name).write_text(name)

        run, real, sent = TrainingRun("memory://runs/cut", lesson), staged, []

        def cut(path: str) -> AbstractContextManager[Path]:
            sent.append(path)
            if len(sent) == 3:
                raise Killed
            return real(path)

        monkeypatch.setattr("capfilt.training.folder.staged", cut)
        with pytest.raises(Killed):
            run.finish(write)
        assert list_files(run.checkpoint) == ["model.safetensors", "vocab.txt"]
        assert not run.finished

    def test_states_come_back_from_there(self, lesson):
        run = TrainingRun("memory://runs/states", lesson)
        for step in (10, 20, 30):
            run.save(state(step))
        assert run.restore()["objective"]["weight"].tolist() == [30.0, 30.0]
        assert list_files(f"{run.folder}/states") == ["000000020.pt", "000000030.pt"]


def test_lines_of_steps_taken_again_and_one_cut_short_are_dropped(lesson):
    run = TrainingRun(lesson.output, lesson)
    run.note([{"step": step, "lm": 1.0} for step in (0, 10, 20)])
    with Path(run.metrics).open("a") as file:
        file.write('{"step": 30, "l')
    run.forget(20)
    assert run.read_metrics() == [{"step": 0, "lm": 1.0}, {"step": 10, "lm": 1.0}]


@pytest.mark.parametrize(
    "line",
    [b'{"step": 2, "lo\x00\n', b"\xff\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": null}\n', b"[" * 100_000 + b"\n"],
)
def test_a_line_that_is_none_is_told_by_its_number(lesson, line):
    run = begun(lesson)
    run.note([{"step": 1}])
    with Path(run.metrics).open("ab") as file:
        file.write(line)

    for look in (run.read_metrics, lambda: run.forget(1)):
        with pytest.raises(RunError, match=r"metrics\.jsonl: line 2 is not a line of metrics; remove it$"):
            look()


def test_settings_that_a_disk_damaged_are_told_as_others(lesson):
    run = begun(lesson)
    run.save(state(1))
    file = Path(lesson.output, "config.yaml")
    file.write_bytes(file.read_bytes().replace(b"learning_rate: 0.003", b"learning_rate: \xff"))
    with pytest.raises(RunError, match=r"config\.yaml: .*learning_rate"):
        begun(lesson)


def test_what_was_left_out_is_written_down(lesson):
    run = TrainingRun(lesson.output, lesson)
    run.note_data(7, 40, {"no_text": 2})
    assert read_bytes(f"{run.folder}/data.json") == b'{"samples": 7, "steps": 40, "left_out": {"no_text": 2}}'
