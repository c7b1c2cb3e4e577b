"""The learning rate of each step, held to the reference tables and to written-out values."""

import json
import math

import pytest

from capfilt.config.training import Schedule
from capfilt.training.schedule import Course


def course(epoch_steps: int = 10, **settings: object) -> Course:
    plan = {"learning_rate": 2.0, "warmup_steps": 0, **settings}
    return Course(Schedule(**({"steps": 110} | plan if "epochs" not in plan else plan)), epoch_steps)


def rates(of: Course, steps: range) -> list[float]:
    return [of.learning_rate(step) for step in steps]


class TestReference:
    """What the original's own functions gave."""

    @pytest.fixture
    def tables(self, shared) -> dict:
        return json.loads((shared / "fixtures/a/meta.json").read_text())["lr_schedules"]

    def test_pre_training_warms_up_and_then_loses_a_tenth_each_epoch(self, tables):
        paper = course(
            10_000,
            epochs=20,
            learning_rate=3e-4,
            warmup_steps=3000,
            warmup_rate=1e-6,
            decay="epoch_factor",
            min_rate=1e-6,
        )
        for step, rate in tables["warmup"].items():
            assert paper.learning_rate(int(step)) == pytest.approx(rate, rel=1e-12)
        assert rates(paper, range(9_999, 200_000, 10_000)) == pytest.approx(tables["pretrain_step_decay"], rel=1e-12)

    def test_fine_tuning_follows_a_cosine_from_epoch_to_epoch(self, tables):
        paper = course(100, epochs=6, learning_rate=1e-5, decay="epoch_cosine")
        assert rates(paper, range(0, 600, 100)) == pytest.approx(tables["cosine_6_epochs_1e-5"], rel=1e-12)
        assert len(set(rates(paper, range(100)))) == 1


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"steps": 50}, True),
        ({"steps": 100}, False),  # the last step has the peak
        ({"epochs": 9, "decay": "linear"}, True),
        ({"epochs": 9, "decay": "epoch_cosine"}, False),  # the warm-up ends with the first epoch of 10 steps
        ({"epochs": 1, "decay": "epoch_cosine"}, True),
    ],
)
def test_a_run_too_short_for_its_warm_up_is_warned_of(settings, warned, caplog):
    plan = course(warmup_steps=100, **settings)
    plan.warn_of_warmup()
    assert ("its learning rate never reaches the peak" in caplog.text) == warned
    assert (max(rates(plan, range(plan.steps))) < 1.9) == warned


class TestCosine:
    def test_it_rises_in_a_line_and_falls_to_nothing(self):
        plan = course(warmup_steps=10)
        assert rates(plan, range(10)) == pytest.approx([0.2 * (step + 1) for step in range(10)])
        assert plan.learning_rate(10) == pytest.approx(2.0)
        assert plan.learning_rate(35) == pytest.approx(1 + math.cos(math.pi / 4))
        assert plan.learning_rate(60) == pytest.approx(1.0)
        assert 0 < plan.learning_rate(109) < 0.001

    def test_it_falls_to_the_least_rate(self):
        assert course(warmup_steps=10, min_rate=1.0).learning_rate(60) == pytest.approx(1.5)

    def test_without_warm_up_it_starts_at_the_peak(self):
        assert course().learning_rate(0) == 2.0

    def test_a_run_shorter_than_its_warm_up_still_has_rates(self):
        plan = course(steps=3, learning_rate=1.0, warmup_steps=10)
        assert rates(plan, range(3)) == pytest.approx([0.1, 0.2, 0.3])


class TestLine:
    def test_it_falls_in_a_line_to_the_least_rate(self):
        plan = course(warmup_steps=10, decay="linear", min_rate=0.3)
        assert rates(plan, range(9, 110, 20)) == pytest.approx([2.0, 1.677, 1.337, 0.997, 0.657, 0.317])

    def test_its_warm_up_may_be_longer_than_an_epoch(self):
        assert course(4, warmup_steps=10, decay="linear").learning_rate(7) == pytest.approx(1.6)


class TestFactor:
    def test_warm_up_ends_with_the_first_epoch_however_short(self):
        plan = course(4, warmup_steps=8, warmup_rate=0.4, decay="epoch_factor", decay_factor=0.5)
        assert rates(plan, range(6)) == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 1.0])

    def test_it_never_falls_below_the_least_rate(self):
        plan = course(decay="epoch_factor", decay_factor=0.1, min_rate=0.05)
        assert rates(plan, range(0, 40, 10)) == pytest.approx([2.0, 0.2, 0.05, 0.05])


def test_epochs_become_steps_and_shares():
    plan = course(7, epochs=4)
    assert plan.steps == 28
    assert plan.done(7) == 0.25


@pytest.mark.parametrize(("steps", "expected"), [(250, [2.0, 1.5, 0.5]), (30, [2.0])])
def test_an_epoch_that_the_run_ends_in_counts_as_a_whole_one(steps, expected):
    """So no step is taken at the rate of nothing, which the original's cosine comes to behind its last epoch."""
    plan = course(100, steps=steps, decay="epoch_cosine")
    assert rates(plan, range(0, steps, 100)) == pytest.approx(expected)
