"""A training run can be stopped anywhere, goes on to the same bits, and refuses other settings."""

import json
import math
from pathlib import Path

import pytest
import torch
from pairs import CPU, sample, schedule, tiny_model, write_shard

from capfilt.config import Config
from capfilt.config.data import DataSettings
from capfilt.config.initial import InitialWeights
from capfilt.config.training import PretrainConfig, Schedule
from capfilt.errors import ConfigError, RunError
from capfilt.med.checkpoints import Checkpoint, load
from capfilt.med.initial import start
from capfilt.training.data import Batch
from capfilt.training.loop import TrainingRun, learning_rate, train
from capfilt.training.objectives import Losses, Pretraining


class Killed(BaseException):
    """Ends a run at some step, as a kill would."""


@pytest.fixture
def config(tmp_path) -> PretrainConfig:
    torch.set_num_threads(1)
    write_shard(tmp_path / "set", map(sample, range(24)))
    return PretrainConfig(
        output=str(tmp_path / "run"),
        model=tiny_model(tmp_path),
        data=DataSettings(shards=[str(tmp_path / "set")], in_memory=True),
        schedule=schedule(25),
        device=CPU,
        seed=3,
    )


def take(config: PretrainConfig, folder: str, objective: type[Pretraining] = Pretraining) -> Path:
    """Train as the pre-training job does, in a folder of its own and with an objective of the test's."""
    run = TrainingRun(Path(config.output).with_name(folder), config)
    checkpoint = start(config.model, InitialWeights(), config.seed)
    train(run, checkpoint, objective(*checkpoint, 0.2), config.data, config.schedule, config.device, config.seed)
    return run.folder


def dying(config: PretrainConfig, step: int) -> type[Pretraining]:
    """Return the objective of pre-training that is killed at a step."""

    class Dying(Pretraining):
        def forward(self, batch: Batch, done: float) -> Losses:
            if round(done * config.schedule.steps) == step:
                raise Killed
            return super().forward(batch, done)

    return Dying


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def kill(config: PretrainConfig, folder: str, step: int) -> None:
    with pytest.raises(Killed):
        take(config, folder, dying(config, step))


class TestResume:
    @pytest.mark.parametrize("steps", [(0,), (7,), (10,), (24,), (3, 12, 19)], ids=str)
    def test_a_run_killed_at_any_step_ends_in_the_same_bytes(self, config, steps):
        """Weights and metrics; dropout and hard negatives are drawn anew in the steps that are taken again."""
        for step in steps:
            kill(config, "run", step)
        assert files(take(config, "run")) == files(take(config, "whole"))

    def test_a_resumed_run_starts_at_its_state_and_not_at_the_beginning(self, config):
        kill(config, "run", 19)
        shares: list[float] = []

        class Noting(Pretraining):
            def forward(self, batch: Batch, done: float) -> Losses:
                shares.append(done)
                return super().forward(batch, done)

        take(config, "run", Noting)
        assert [round(share * 25) for share in shares] == list(range(10, 25))

    def test_a_kill_while_the_state_is_written_leaves_the_one_before(self, config, monkeypatch):
        real, calls = torch.save, []

        def cut(state: object, path: Path) -> None:
            calls.append(path)
            if len(calls) < 2:
                return real(state, path)
            Path(path).write_bytes(b"half a st")
            raise Killed

        monkeypatch.setattr(torch, "save", cut)
        with pytest.raises(Killed):
            take(config, "run")
        monkeypatch.undo()

        found = files(take(config, "run"))
        assert {name: found[name] for name in found if "partial" not in name} == files(take(config, "whole"))

    def test_a_kill_while_the_checkpoint_is_written_is_made_good(self, config, monkeypatch):
        def die(*_: object, **__: object) -> None:
            raise Killed

        monkeypatch.setattr("capfilt.med.checkpoints.publish", die)  # of config.json, the last file
        with pytest.raises(Killed):
            take(config, "run")
        monkeypatch.undo()
        run = TrainingRun(Path(config.output), config)
        assert (run.checkpoint / "model.safetensors").exists()
        assert not run.finished

        assert files(take(config, "run")) == files(take(config, "whole"))

    def test_a_damaged_state_is_refused_by_name(self, config):
        kill(config, "run", 12)
        state = Path(config.output) / "state.pt"
        for content in (b"", b"half a st", state.read_bytes()[:-100]):
            state.write_bytes(content)
            with pytest.raises(RunError, match=r"state\.pt: is damaged \(\w+\); remove it to train from the start"):
                take(config, "run")


class TestSettings:
    def test_other_settings_are_refused_with_the_first_that_differs(self, config):
        TrainingRun(Path(config.output), config)
        other = config.model_copy(update={"schedule": schedule(25, learning_rate=1e-4)})
        with pytest.raises(
            RunError, match=r"config\.yaml: holds 'learning_rate: 0\.003' where 'learning_rate: 0\.0001'"
        ):
            TrainingRun(Path(config.output), other)

    def test_the_same_settings_are_taken_up_and_their_file_left_alone(self, config):
        settings = TrainingRun(Path(config.output), config).folder / "config.yaml"
        before = settings.stat().st_mtime_ns, settings.read_bytes()
        TrainingRun(Path(config.output), config)
        assert (settings.stat().st_mtime_ns, settings.read_bytes()) == before

    def test_a_kill_while_the_settings_are_written_leaves_none(self, config, monkeypatch):
        monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(Killed))
        monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            TrainingRun(Path(config.output), config)
        monkeypatch.undo()
        assert not (Path(config.output) / "config.yaml").exists()
        assert not TrainingRun(Path(config.output), config).finished

    def test_texts_longer_than_the_model_takes_are_refused_before_the_first_step(self, config):
        data = config.data.model_copy(update={"max_tokens": 41})
        with pytest.raises(ConfigError, match=r"data\.max_tokens: 41, the model takes 40; lower it"):
            take(config.model_copy(update={"data": data}), "run")


class TestMetrics:
    def test_they_hold_every_tenth_step_and_the_last(self, config):
        folder = take(config, "run")
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [0, 10, 20, 24]
        assert [sorted(line) for line in lines] == [
            sorted(["step", "lm", "itc", *(["itm"] if step >= 5 else []), "learning_rate", "gradient_norm"])
            for step in (0, 10, 20, 24)
        ]
        assert lines[1]["learning_rate"] == learning_rate(10, config.schedule)

    def test_a_line_cut_short_and_lines_of_steps_taken_again_are_dropped(self, config):
        kill(config, "run", 15)  # the state is that of step 10, the metrics go to step 10
        metrics = Path(config.output) / "metrics.jsonl"
        assert len(metrics.read_text().splitlines()) == 2
        with metrics.open("a") as file:
            file.write('{"step": 20, "l')
        take(config, "run")
        assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [0, 10, 20, 24]


class TestSchedule:
    def test_the_rate_rises_in_a_line_and_falls_in_a_cosine_to_nothing(self):
        plan = Schedule(steps=110, batch_size=1, learning_rate=2.0, warmup_steps=10)
        assert [learning_rate(step, plan) for step in range(10)] == pytest.approx([0.2 * (s + 1) for s in range(10)])
        assert learning_rate(10, plan) == pytest.approx(2.0)
        assert learning_rate(35, plan) == pytest.approx(1 + math.cos(math.pi / 4))
        assert learning_rate(60, plan) == pytest.approx(1.0)
        assert 0 < learning_rate(109, plan) < 0.001

    def test_without_warm_up_it_starts_at_the_peak(self):
        assert learning_rate(0, Schedule(steps=5, batch_size=1, learning_rate=2.0, warmup_steps=0)) == 2.0

    def test_a_run_shorter_than_its_warm_up_still_has_rates(self):
        plan = Schedule(steps=3, batch_size=1, learning_rate=1.0, warmup_steps=10)
        assert [learning_rate(step, plan) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_the_losses_fall_on_a_tiny_set(config):
    longer = config.model_copy(update={"schedule": schedule(120, batch_size=8, warmup_steps=10)})
    folder = take(longer, "run")
    first, *_, last = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    assert last["lm"] < 0.6 * first["lm"]
    assert last["itc"] < 0.9 * first["itc"]


def test_all_weights_move_from_where_they_started(config):
    folder = take(config, "run")
    before, after = (
        start(config.model, InitialWeights(), config.seed).model.state_dict(),
        load(folder / "checkpoint").model.state_dict(),
    )
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == set()


def test_a_long_gradient_is_scaled_down_and_a_wild_temperature_held(config):
    """One step at rate 1e9 and a loss whose gradient is enormous; AdamW alone would send the temperature away."""

    class Steep(Pretraining):
        def forward(self, batch: Batch, done: float) -> Losses:
            return {"lm": 1e6 * self.model.temperature + 0.0 * sum(p.sum() for p in self.parameters())}

    wild = config.model_copy(update={"schedule": schedule(1, learning_rate=1e9, warmup_steps=0)})
    folder = take(wild, "run", Steep)
    assert load(folder / "checkpoint").model.temperature.item() == pytest.approx(0.001)
    assert json.loads((folder / "metrics.jsonl").read_text())["gradient_norm"] == pytest.approx(1e6)


def test_the_checkpoint_is_ready_to_use_and_the_state_is_gone(config):
    folder = take(config, "run")
    assert sorted(f.name for f in folder.iterdir()) == ["checkpoint", "config.yaml", "data.json", "metrics.jsonl"]
    found: Checkpoint = load(folder / "checkpoint")
    assert not found.model.training
    assert TrainingRun(folder, config).finished


def test_what_was_left_out_is_written_down(tmp_path, caplog):
    run = TrainingRun(tmp_path / "run", Config())
    run.note_data(7, {"no_text": 2})
    assert json.loads((tmp_path / "run" / "data.json").read_text()) == {"samples": 7, "left_out": {"no_text": 2}}
    assert "7 samples are trained on, left out: 2 no_text" in caplog.text
