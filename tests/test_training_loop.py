"""Training can be stopped anywhere and goes on to the same bits; ranks and parts agree where the maths says so."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from lessons import Colours, Lesson, attend, checkpoint, in_ranks, job, metrics, same, weights
from processes import exit_code, start_ranks

from capfilt.config.training import Tracking, TrainingDevice
from capfilt.errors import ModelError, RunError
from capfilt.med.checkpoints import load, save
from capfilt.training.data import Batch
from capfilt.training.folder import TrainingRun
from capfilt.training.job import Job
from capfilt.training.objectives import Captioning, Losses

EVERY_STEP = Tracking(tensorboard=False, every=1)
ROUNDING = ("key.bias", "qkv.bias")  # the gradient of a key's bias is 0 but for rounding, which AdamW scales up


class Killed(BaseException):
    """Ends a run at some step, as a kill would."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def lesson(tmp_path) -> Lesson:
    return Lesson(output=str(tmp_path / "run"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainingRun]:
    """Return what gives the run of an objective that nothing befell."""

    @cache
    def run(objective: str) -> TrainingRun:
        folder = tmp_path_factory.mktemp(objective)
        return attend(Lesson(output=str(folder / "run"), objective=objective))

    return run


def elsewhere(lesson: Lesson, name: str = "whole") -> Lesson:
    return lesson.model_copy(update={"output": str(Path(lesson.output).with_name(name)), "dies_at": None})


def kill(lesson: Lesson, step: int, lecture: Job[Batch] | None = None) -> None:
    """Train until a step, then end as by a kill."""
    lecture = lecture or job(lesson)

    def die(module: torch.nn.Module, arguments: tuple[Batch, float]) -> None:
        if round(arguments[1] * (lesson.schedule.steps or 1)) == step:
            raise Killed

    lecture.objective.register_forward_pre_hook(die)
    with pytest.raises(Killed):
        attend(lesson, lecture)


class TestResume:
    @pytest.mark.parametrize("objective", ["captioning", "pretraining"])
    @pytest.mark.parametrize("steps", [(0,), (7,), (24,), (3, 12, 19)], ids=str)
    def test_a_run_killed_at_any_step_ends_in_the_same_bits(self, lesson, undisturbed, steps, objective):
        """Weights, queues, copies and metrics; dropout and negatives are drawn anew in the steps taken again."""
        lesson = lesson.model_copy(update={"objective": objective})
        for step in steps:
            kill(lesson, step)
        assert same(attend(lesson), undisturbed(objective))

    def test_a_process_killed_by_the_system_leaves_a_run_that_goes_on_to_the_same_bits(self, lesson, undisturbed):
        lesson = lesson.model_copy(update={"dies_at": 17})
        assert exit_code(attend, lesson) == -signal.SIGKILL
        assert TrainingRun(lesson.output, lesson).newest == 10
        assert same(attend(lesson), undisturbed("captioning"))

    def test_a_resumed_run_starts_at_its_state_and_not_at_the_beginning(self, lesson):
        kill(lesson, 19)
        lecture = job(lesson)
        attend(lesson, lecture)
        assert lecture.data.asked == list(range(10, 25))

    def test_samples_left_out_before_a_kill_are_written_down_at_the_end(self, lesson):
        lecture = job(lesson)
        lecture.data.left_out["no_text"] = 2
        kill(lesson, 19, lecture)
        written = json.loads(Path(attend(lesson).folder, "data.json").read_text())
        assert written == {"samples": 24, "steps": 25, "left_out": {"no_text": 2}}

    def test_a_damaged_state_leaves_the_one_before_to_go_on_from(self, lesson, undisturbed, caplog):
        kill(lesson, 22)
        newest = Path(lesson.output) / "states" / "000000020.pt"
        newest.write_bytes(newest.read_bytes()[:-100])
        lecture = job(lesson)
        run = attend(lesson, lecture)
        assert lecture.data.asked[0] == 10
        assert "000000020.pt: is damaged (RuntimeError); resuming from the state before" in caplog.text
        assert same(run, undisturbed("captioning"))

    def test_a_run_goes_on_under_settings_that_do_not_change_what_is_learned(self, lesson, undisturbed):
        kill(lesson, 12)
        device = TrainingDevice(kind="cpu", threads=1, recompute_vision=1, recompute_text=1)
        lecture, calls = job(lesson), Counter[str]()
        for name in ("vision.vit.blocks.1.attn.qkv", "text.blocks.1.decoder_attn.query"):
            part = lecture.objective.model.get_submodule(name)
            part.register_forward_hook(lambda *_, name=name: calls.update([name]))
        run = attend(lesson.model_copy(update={"device": device}), lecture)
        assert list(calls.values()) == [2 * 15] * 2  # once again for the gradient of each step from 10 to 24
        for name, tensor in weights(undisturbed("captioning")).items():
            torch.testing.assert_close(weights(run)[name], tensor, atol=1e-5, rtol=1e-4)


class TestParts:
    def test_a_batch_in_two_parts_gives_the_gradients_of_the_whole(self, lesson):
        """LM is a mean over tokens, and both parts hold equally many."""
        lesson = lesson.model_copy(update={"dropout": 0.0, "tracking": EVERY_STEP}).planned(steps=3)
        whole, parts = attend(lesson), attend(elsewhere(lesson).planned(accumulation=2))
        close(whole, parts)

    def test_the_parts_of_a_batch_are_those_of_as_many_ranks(self, lesson):
        source = Colours(4)
        shares = [batch for share in range(2) for batch in source.batches(range(5, 6), share, 2)]
        assert torch.equal(torch.cat([share.ids for share in shares]), source.whole(5).ids)

    def test_every_part_of_every_step_has_chances_of_its_own_and_other_ones_by_another_seed(self, lesson):
        seeds = []
        for other in (lesson, elsewhere(lesson).model_copy(update={"seed": 4})):
            lecture = job(other)
            lecture.objective.register_forward_pre_hook(lambda *_: seeds.append(torch.initial_seed()))
            attend(other.planned(accumulation=2, steps=10), lecture)
        assert len(set(seeds)) == len(seeds) == 40


def note_seeds(number: int, lesson: str, folder: Path) -> None:
    """Train as one of two ranks, and write down what each part of each step was seeded with."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=number, world_size=2)
    seeds, mine = [], Lesson.model_validate_json(lesson)
    lecture = job(mine)
    lecture.objective.register_forward_pre_hook(lambda *_: seeds.append(torch.initial_seed()))
    attend(mine, lecture)
    (folder / f"{number}.json").write_text(json.dumps(seeds))
    torch.distributed.destroy_process_group()


class TestRanks:
    @pytest.mark.parametrize("parts", [1, 2])
    def test_two_ranks_learn_what_one_learns_from_the_same_batches(self, lesson, parts):
        """Losses and weights to rounding: LM is a mean over tokens, and all shares have equally many."""
        lesson = lesson.model_copy(update={"dropout": 0.0, "tracking": EVERY_STEP}).planned(steps=3)
        in_ranks(elsewhere(lesson).planned(accumulation=parts), 2)
        close(attend(lesson), TrainingRun(elsewhere(lesson).output, lesson))

    def test_no_two_parts_of_ranks_share_their_chances(self, lesson, tmp_path):
        """Else two images of a batch would have one dropout, and one draw of negatives."""
        start_ranks(note_seeds, (lesson.planned(accumulation=2, steps=3).model_dump_json(), tmp_path), 2)
        seeds = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)]
        assert [len(each) for each in seeds] == [6, 6]
        assert len({*seeds[0], *seeds[1]}) == 12

    @pytest.mark.slow
    def test_ranks_with_folders_of_their_own_are_told(self, lesson):
        kill(lesson, 12)
        with pytest.raises(Exception, match=r"found states of steps 10, 0; set output to a URL, or to a folder"):
            in_ranks(lesson, 2, apart=True)


def close(one: TrainingRun, other: TrainingRun) -> None:
    for mine, theirs in zip(metrics(one), metrics(other), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    for name, tensor in weights(one).items():
        if not name.endswith(ROUNDING):
            torch.testing.assert_close(weights(other)[name], tensor, atol=2e-5, rtol=1e-4)


class TestNumbers:
    def broken(self, lesson: Lesson, step: int) -> Job[Batch]:
        class Broken(Captioning):
            def forward(self, batch: Batch, done: float) -> Losses:
                losses = super().forward(batch, done)
                return losses if done < step / 25 else {"lm": losses["lm"] * float("nan"), "other": losses["lm"]}

        found = checkpoint(lesson)
        return Job(Broken(*found, "a picture of"), Colours(4), partial(save, found))

    @pytest.mark.parametrize(("step", "kept"), [(3, 0), (13, 10), (24, 20)])
    def test_a_loss_that_is_no_number_stops_the_run_with_its_step_and_keeps_the_state_before(self, lesson, step, kept):
        with pytest.raises(
            ModelError,
            match=rf"run: step {step}: the losses are lm nan, other \S+, .*; the state of step {kept} is kept",
        ):
            attend(lesson, self.broken(lesson, step))
        assert TrainingRun(lesson.output, lesson).newest == kept
        assert not TrainingRun(lesson.output, lesson).finished

    def test_so_does_a_gradient_before_its_weights_get_into_a_state(self, lesson):
        """The last step before a state: its losses are sound, and only the weights that it leaves are not."""
        spoilt = job(lesson)

        def spoil(gradient: torch.Tensor) -> torch.Tensor:
            return gradient * float("nan") if spoilt.data.asked[-1] == 19 else gradient

        next(spoilt.objective.model.parameters()).register_hook(spoil)
        with pytest.raises(
            ModelError, match=r"step 19: the losses are lm \d\S+, the gradient's length nan; .* step 10 is"
        ):
            attend(lesson, spoilt)
        assert TrainingRun(lesson.output, lesson).newest == 10

    def test_the_run_can_be_mended_and_goes_on(self, lesson, undisturbed):
        with pytest.raises(ModelError):
            attend(lesson, self.broken(lesson, 13))
        assert same(attend(lesson), undisturbed("captioning"))


def test_a_model_that_was_loaded_to_be_used_is_trained_with_its_dropout(lesson, undisturbed):
    lecture = job(lesson)
    lecture.objective.eval()
    assert same(attend(lesson, lecture), undisturbed("captioning"))


def test_a_step_has_the_rate_and_the_longest_gradient_of_the_schedule(lesson):
    lesson = lesson.planned(checkpoint_steps=1, max_gradient_norm=1e-3)
    kill(lesson, 1)
    state = TrainingRun(lesson.output, lesson).restore()
    assert state is not None
    assert {group["lr"] for group in state["optimiser"]["param_groups"]} == {3e-3 / 2}  # the first of two of warm-up
    moments = [each["exp_avg"].flatten() for each in state["optimiser"]["state"].values()]
    assert torch.cat(moments).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)  # 1 - beta1 of the gradient


def test_the_losses_fall(lesson):
    first, *_, last = metrics(attend(lesson.planned(steps=60)))
    assert last["lm"] < 0.8 * first["lm"]


def test_all_weights_move_from_where_they_started(lesson):
    lesson = lesson.model_copy(update={"objective": "pretraining"})
    after, before = weights(attend(lesson)), checkpoint(lesson).model.state_dict()
    assert not [name for name in before if torch.equal(before[name], after[name])]


@pytest.mark.parametrize("objective", ["captioning", "pretraining"])
def test_bfloat16_learns_about_the_same(lesson, undisturbed, objective):
    device = lesson.device.model_copy(update={"dtype": "bfloat16"})
    half = attend(elsewhere(lesson).model_copy(update={"device": device, "objective": objective}))
    assert metrics(half)[-1]["lm"] == pytest.approx(metrics(undisturbed(objective))[-1]["lm"], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in weights(half).values())
    assert not same(half, undisturbed(objective))


@pytest.mark.slow
def test_a_compiled_objective_learns_the_same(lesson):
    device = lesson.device.model_copy(update={"compile": True})
    compiled = attend(elsewhere(lesson).planned(steps=3).model_copy(update={"device": device, "dropout": 0.0}))
    close(attend(lesson.planned(steps=3).model_copy(update={"dropout": 0.0})), compiled)


def test_the_checkpoint_is_ready_to_use_and_the_states_are_gone(lesson):
    run = attend(lesson)
    names = ["checkpoint", "config.yaml", "curve.svg", "data.json", "metrics.jsonl"]
    assert sorted(file.name for file in Path(run.folder).iterdir()) == names
    assert not load(Path(run.checkpoint)).model.training
    assert run.finished


def test_a_state_without_a_readable_one_is_refused_by_name(lesson):
    kill(lesson, 12)
    for file in Path(lesson.output, "states").iterdir():
        file.write_bytes(b"half a st")
    with pytest.raises(RunError, match=r"states: every state is damaged; remove the folder to train from the start"):
        attend(lesson)
