"""Training on a real Ray: workers die, the job goes on from its state, and the result is that of an undisturbed run."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import ray
from lessons import TWO, Lesson, attend, in_ranks, same, together, without_ray
from processes import exit_code
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError
from trials import lose_disk, refuse, try_once

from capfilt.background import in_background
from capfilt.config.training import TrainingCluster
from capfilt.errors import PASSING, ModelError, WorkerError
from capfilt.storage import append
from capfilt.training.folder import TrainingRun
from capfilt.training.ranks import rank
from workers.launch import launch
from workers.train_worker import _tell

ONCE = TWO.model_copy(update={"attempts": 1})


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    return Lesson(output=str(tmp_path / "run"), objective="pretraining")


def elsewhere(lesson: Lesson, **changes: object) -> Lesson:
    return lesson.model_copy(update={"output": str(Path(lesson.output).with_name("whole")), **changes})


def fail_at_the_end(lesson: Lesson) -> None:
    try_once(lesson.output)
    run = attend(lesson)
    if rank():
        wait_for(lambda: run.finished and not Path(run.folder, "states").exists())
        raise RuntimeError("the network went down")


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("ray_cluster")
class TestWorkers:
    def test_a_killed_worker_costs_the_steps_since_the_last_state_and_nothing_else(self, lesson, capfd):
        """Losses, weights, queues and copies: both ranks draw their dropout and negatives anew."""
        on_interrupt = signal.getsignal(signal.SIGINT)
        hurt = together(lesson.model_copy(update={"dies_at": 17}))
        assert signal.getsignal(signal.SIGINT) is on_interrupt
        assert Path(lesson.output).with_name("killed").exists()
        assert "goes on from the state of step 10, since" in capfd.readouterr().err
        assert hurt.finished
        assert not Path(hurt.folder, "ray").exists()
        assert same(hurt, in_ranks(elsewhere(lesson), 2))

    def test_what_the_user_can_mend_stops_the_job_at_once(self, lesson):
        run = TrainingRun(lesson.output, lesson)
        with pytest.raises(ModelError, match="step 3: the losses are lm nan"):
            launch(partial(refuse, run.folder), run, TrainingCluster(address="auto", workers=1))
        assert Path(run.folder, "tried").read_text() == "x"

    @pytest.mark.slow
    def test_a_worker_that_fails_once_the_checkpoint_is_whole_does_not_train_it_anew(self, lesson, caplog):
        run = TrainingRun(lesson.output, lesson)
        launch(partial(fail_at_the_end, lesson), run, TWO)
        assert Path(run.folder, "tried").read_text() == "xx"
        assert "the training is done; after its end, worker 1: " in caplog.text
        assert not Path(run.folder, "ray").exists()
        assert same(run, in_ranks(elsewhere(lesson), 2))

    def test_a_job_that_finds_no_room_says_so_and_begins_when_there_is_some(self, lesson, monkeypatch):
        others, said = ray.util.placement_group([{"CPU": 1}]), []
        assert others.wait(60)

        def make_room(text: str) -> None:
            said.append(text)
            ray.util.remove_placement_group(others)

        monkeypatch.setattr("workers.train_worker.TOLD_EVERY", 0.2)
        monkeypatch.setattr("workers.train_worker.say", make_room)
        launch(partial(try_once, lesson.output), TrainingRun(lesson.output, lesson), TWO)
        asked, free = "2 workers, each with 1 CPU and 0 GPUs", "1 CPU and 0 GPUs"
        assert said[0] == f"no worker can start yet; cluster: {asked}; free: {free}"
        assert Path(lesson.output, "tried").read_text() == "xx"

    def test_looks_that_fail_do_not_end_the_telling(self, lesson, monkeypatch, caplog):
        run, said = TrainingRun(lesson.output, lesson), []
        run.begin()
        monkeypatch.setattr("workers.train_worker.TOLD_EVERY", 0.05)
        monkeypatch.setattr("workers.train_worker.say", said.append)
        metrics = Path(run.metrics)
        with in_background(partial(_tell, run, TWO)):
            metrics.mkdir()  # which no read succeeds at
            wait_for(lambda: f"{run.folder}: its progress cannot be read: IsADirectoryError" in caplog.text)
            metrics.rmdir()
            append(run.metrics, b'{"step": 1, "lm": 2.5}\n{"step": 2, "l')
            wait_for(lambda: said)
            append(run.metrics, b'm": 2.0}\n')
            wait_for(lambda: len(said) == 2)
        assert said == ["step 1, lm 2.5", "step 2, lm 2"]
        assert "JSONDecodeError" not in caplog.text

    def test_a_job_that_a_store_fails_again_and_again_ends_as_what_may_do_another_time(self, lesson):
        with pytest.raises(WorkerError, match=r"failed 1 times in a row at the state of step 0: worker \d: ") as told:
            launch(partial(lose_disk, errno.ESTALE), TrainingRun(lesson.output, lesson), ONCE)
        assert told.value.exit_code == PASSING

    def test_a_job_whose_disk_takes_nothing_ends_as_what_is_to_be_mended(self, lesson, monkeypatch):
        def fail(trainer: TorchTrainer) -> None:
            raise WorkerGroupError("", {1: OSError(errno.EROFS, "the disk is read-only", "run/states")})

        monkeypatch.setattr(TorchTrainer, "fit", fail)
        with pytest.raises(WorkerError, match=r"at the state of step 0: worker 1: OSError: .*read-only") as told:
            together(lesson, ONCE)
        assert told.value.exit_code == 1

    def test_a_failure_of_ray_train_itself_is_told_in_one_line(self, lesson, monkeypatch):
        def fail(trainer: TorchTrainer) -> None:
            raise ControllerError(ValueError("no notes can be kept\nhere"))

        monkeypatch.setattr(TorchTrainer, "fit", fail)
        with pytest.raises(WorkerError) as told:
            together(lesson, TWO.model_copy(update={"attempts": 2}))
        failure = "failed 2 times in a row at the state of step 0: Ray Train: ValueError: no notes can be kept"
        assert str(told.value) == f"{lesson.output}: {failure}"

    @pytest.mark.slow
    def test_a_job_that_gets_nowhere_is_given_up_and_can_be_run_again(self, lesson):
        mortal = lesson.model_copy(update={"dies_at": 17})
        with pytest.raises(WorkerError, match=r"failed 1 times in a row at the state of step 10: worker \d"):
            together(mortal, ONCE)
        assert same(together(mortal, ONCE), together(elsewhere(lesson)))


@pytest.mark.slow
def test_a_killed_driver_leaves_a_run_that_the_same_command_ends(lesson):
    lesson = lesson.planned(steps=400)
    code = f"from test_train_worker import *\ntogether(Lesson.model_validate_json({lesson.model_dump_json()!r}))"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": str(Path(__file__).parent)}
    driver = subprocess.Popen(command, env=environment)
    run = TrainingRun(lesson.output, lesson)
    while run.newest < 50:
        assert driver.poll() is None
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert not run.finished
    time.sleep(10)  # Ray ends what the driver left behind
    subprocess.run(command, env=environment, check=True)
    whole = elsewhere(lesson)
    subprocess.run([sys.executable, "-c", python(whole)], env=environment, check=True)
    assert same(run, TrainingRun(whole.output, whole))


def python(lesson: Lesson) -> str:
    """Return a program that attends a lesson."""
    return f"from lessons import Lesson, together\ntogether(Lesson.model_validate_json({lesson.model_dump_json()!r}))"


def test_one_worker_needs_no_ray(lesson):
    lesson = lesson.planned(steps=1)
    assert exit_code(without_ray, lesson) == 0
    assert TrainingRun(lesson.output, lesson).finished
