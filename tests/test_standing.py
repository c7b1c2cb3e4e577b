"""How a run stands follows from its lease, its record and a request to stop."""

import json
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fakes import NAMES, job_config, mixed_shards

from capfilt import standing as standings
from capfilt.errors import FailedUnitsError, RunError, StoppedError
from capfilt.runs import start_run
from capfilt.runs.folder import EXPORTS
from capfilt.runs.lease import EXPIRY, hold_lease
from capfilt.runs.status import StatusRecord, job_of, keep_status
from capfilt.runs.stop import request_stop
from capfilt.standing import at_work, look_at, render_standing
from capfilt.tally import Tally
from capfilt.training.progress import TrainingProgress


def leave_lease(root: Path, **changes: object) -> None:
    """Leave a lease as a driver does that is killed."""
    with hold_lease(str(root)):
        values = json.loads((root / "lease.json").read_text()) | changes
    (root / "lease.json").write_text(json.dumps(values))


def test_a_run_that_is_at_work(tmp_path):
    with hold_lease(str(tmp_path)), keep_status(str(tmp_path)):
        assert look_at(str(tmp_path)).state == "running"
        request_stop(str(tmp_path))
        standing = look_at(str(tmp_path))

    assert standing.state == "stopping"
    lines = render_standing(standing).splitlines()
    assert lines[0] == f"{tmp_path}: stopping: what is in hand is finished, and nothing else begun"
    assert lines[1].startswith("  driver    pid ")
    assert lines[2].endswith("no unit is begun yet")
    assert render_standing(standing, submitted=True).splitlines()[0] == lines[0]


def test_a_running_export_is_at_work_on_its_run(tmp_path):
    export = str(tmp_path / EXPORTS / "default-0123")
    with hold_lease(export), keep_status(export):
        assert at_work(str(tmp_path)).run == export
        request_stop(export)
        assert at_work(str(tmp_path)).state == "stopping"
        with hold_lease(str(tmp_path)), keep_status(str(tmp_path)):
            assert at_work(str(tmp_path)).run == str(tmp_path)
    assert at_work(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("error", "state", "words", "nothing"),
    [
        (None, "done", "done", "nothing was left to do"),
        (StoppedError("0 units"), "stopped", "stopped as asked; run the same again to go on", "no unit was done"),
        (KeyboardInterrupt(), "ended", "ended at once; run the same again to go on", "no unit was done"),
    ],
)
def test_how_a_driver_ended_is_told_and_that_its_job_on_a_cluster_is_still_at_work(
    tmp_path, error, state, words, nothing
):
    with suppress(StoppedError, KeyboardInterrupt), keep_status(str(tmp_path)) as board:
        board.begin(samples=2000, done=500)
        board.write()
        assert render_standing(look_at(str(tmp_path))).splitlines()[1] == "  samples   500 of 2,000 (25.0%)"
        if error is not None:
            raise error

    standing = look_at(str(tmp_path))
    assert standing.state == state
    lines = render_standing(standing).splitlines()
    assert lines[:2] == [f"{tmp_path}: {words}", "  samples   500 of 2,000 (25.0%)"]
    assert lines[2].endswith(f" ago: {nothing}")
    still = words if error is None else f"{words.partition(';')[0]}; its job is at work, and starts a driver or ends"
    assert render_standing(standing, submitted=True).splitlines()[0] == f"{tmp_path}: {still}"


def test_a_driver_that_comes_while_its_run_is_looked_at_has_not_died(tmp_path, monkeypatch):
    with ExitStack() as driver:

        def read_late(root: str) -> StatusRecord | None:
            monkeypatch.undo()
            driver.enter_context(hold_lease(root))
            driver.enter_context(keep_status(root))
            return standings.read_status(root)

        monkeypatch.setattr(standings, "read_status", read_late)

        assert look_at(str(tmp_path)).state == "running"


def test_a_run_tells_how_far_it_is_what_is_kept_and_what_failed(tmp_path):
    with hold_lease(str(tmp_path)), keep_status(str(tmp_path)) as board:
        board.begin(samples=2000, done=500)
        board.staff(1, 2)
        tally = Tally()
        tally.statuses.update(too_large=2, ok=490, not_an_image=8)
        tally.candidates.update(web=400, synthetic=490, human=0)
        tally.kept.update(synthetic=343)
        board.add(500, tally)
        board.write()
        lines = render_standing(look_at(str(tmp_path))).splitlines()

    assert lines[0] == f"{tmp_path}: running"
    assert lines[2] == "  samples   1,000 of 2,000 (50.0%)"
    assert "1 unit, " in lines[3]
    assert lines[4] == "  workers   1 of 2 ready"
    assert lines[5].startswith("  left      ")
    assert lines[6:8] == ["  kept      synthetic 70% of 490, web 0% of 400", "  failed    8 not_an_image, 2 too_large"]


def test_a_run_whose_driver_was_killed(tmp_path):
    with keep_status(str(tmp_path)) as board:
        board.begin(samples=2000, done=0)
        board.staff(1, 2)
        board.add(500, Tally())
        board.write()
        written = (tmp_path / "status.json").read_bytes()
    (tmp_path / "status.json").write_bytes(written)
    leave_lease(tmp_path, host="elsewhere", renewed=time.time() - EXPIRY - 1)

    standing = look_at(str(tmp_path))
    assert standing.state == "died"
    assert standing.driver is not None
    assert standing.driver.host == "elsewhere"
    assert at_work(str(tmp_path)) is None
    shown = render_standing(standing)
    assert shown.startswith(f"{tmp_path}: its driver has died; run the same again to go on\n")
    assert "  samples   500 of 2,000 (25.0%)\n" in shown
    assert "  left " not in shown  # nobody is at work on it
    assert "  workers " not in shown


def test_a_run_that_failed_says_why(tmp_path):
    with pytest.raises(RunError), keep_status(str(tmp_path)):
        raise RunError("the inputs are not those that the run was planned with")

    first, begun = render_standing(look_at(str(tmp_path))).splitlines()
    assert first == (
        f"{tmp_path}: failed; fix it, then run the same again (the inputs are not those that the run was planned with)"
    )
    assert begun.endswith("no unit is begun yet")


def test_a_run_that_is_partly_done_tells_what_failed(tmp_path):
    with pytest.raises(FailedUnitsError), keep_status(str(tmp_path)):
        raise FailedUnitsError(["1.tar: 3 of 3 samples failed", "2.tar: is cut short"], "2 shards; 0 failed")

    standing = look_at(str(tmp_path))

    assert standing.state == "partly"
    assert render_standing(standing).splitlines()[:3] == [
        f"{tmp_path}: partly done; some units or shards failed; to retry them, run the same again",
        "  reason    1.tar: 3 of 3 samples failed",
        "  reason    2.tar: is cut short",
    ]


def test_a_run_without_a_record_is_counted_by_its_ledger(tmp_path):
    mixed_shards(tmp_path / "in", shards=2)
    config = job_config(tmp_path)
    run = start_run(config, NAMES)
    assert look_at(config.run).shards is None

    from capfilt.planning import plan_shards
    from capfilt.shards import find_shards

    plan_shards(run, find_shards(config.input))
    assert look_at(config.run).shards == (0, 2)
    assert look_at(config.run).to_json()["shards"] == {"complete": 0, "all": 2}
    assert render_standing(look_at(config.run)).splitlines()[1] == "  shards    0 of 2 complete"


def test_a_training_at_which_nobody_is_at_work(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").touch()
    monkeypatch.chdir(tmp_path.parent)
    assert look_at(tmp_path.name).run == str(tmp_path)
    assert render_standing(look_at(str(tmp_path))) == f"{tmp_path}: nobody is at work; run the same again to go on"

    nothing = {"driver": None, "progress": None, "shards": None, "job": None}
    training = {"done": 0, "steps": None, "batch_size": 0, "losses": {}, "rate": 0.0, "seconds_left": None}
    found = {"run": str(tmp_path), "state": "idle", **nothing, "training": training}
    assert look_at(str(tmp_path)).to_json() == found

    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").touch()
    assert render_standing(look_at(str(tmp_path))) == f"{tmp_path}: done"
    assert at_work(str(tmp_path)) is None


def test_a_training_whose_driver_was_killed(tmp_path):
    (tmp_path / "config.yaml").touch()
    leave_lease(tmp_path, renewed=time.time() - EXPIRY - 1)
    assert look_at(str(tmp_path)).state == "died"
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/config.json").touch()
    assert look_at(str(tmp_path)).state == "done"  # it was killed when all was written


METRICS = b"""{"step": 0, "lm": 9.5, "learning_rate": 1e-4, "samples_per_second": 2.0}
{"step": 24, "lm": 2.25, "itc": 1.5, "learning_rate": 1e-4, "samples_per_second": 16.0}
{"step": 34, "lm": 1"""


def test_a_training_tells_its_step_its_losses_and_the_time_left(tmp_path):
    (tmp_path / "config.yaml").write_text("schedule: {epochs: 2, batch_size: 8}\n")
    (tmp_path / "data.json").write_text('{"samples": 400, "steps": 100, "left_out": {}}')
    with hold_lease(str(tmp_path)), keep_status(str(tmp_path)) as board:
        board.set_phase("training")
        board.write()
        assert render_standing(look_at(str(tmp_path))).splitlines()[2:] == ["  steps     0 of 100 (0.0%)"]
        (tmp_path / "metrics.jsonl").write_bytes(METRICS)
        standing = look_at(str(tmp_path))

    assert standing.state == "running"
    assert render_standing(standing).splitlines()[2:] == [
        "  steps     25 of 100 (25.0%), 16.0 samples/s",
        "  losses    lm 2.250, itc 1.500",
        "  left      0:00:38",
    ]
    assert standing.to_json()["training"]["seconds_left"] == 37.5


@pytest.mark.parametrize(
    "line", ["", "\n", "[1]\n", '{"step": NaN}\n', '{"step": null}\n', '{"step": "x"}\n', "[" * 100_000 + "\n"]
)
def test_metrics_that_cannot_be_read_leave_the_step_unknown(tmp_path, line):
    (tmp_path / "config.yaml").write_text("schedule: {steps: null, epochs: 2, batch_size: 8}\n")
    (tmp_path / "metrics.jsonl").write_text(line)

    assert look_at(str(tmp_path)).training == TrainingProgress(0, None, 8)


def test_a_driver_whose_clock_is_ahead_was_not_seen_in_days_to_come(tmp_path):
    (tmp_path / "config.yaml").touch()
    leave_lease(tmp_path, renewed=time.time() + 30)
    assert render_standing(look_at(str(tmp_path))).splitlines()[1].endswith(", last seen 0:00:00 ago")


def test_a_loop_tells_its_job_and_how_that_stands(tmp_path):
    job = tmp_path / "round-0" / "bootstrap"
    with hold_lease(str(tmp_path)), keep_status(str(tmp_path)) as board:
        board.enter("round-0/bootstrap", 2, 8)
        at = "  at        round-0/bootstrap; 2 of 8 jobs are done"
        assert render_standing(look_at(str(tmp_path))).splitlines()[2:] == [at]  # the job has not begun
        with hold_lease(str(job)), keep_status(str(job)):
            standing = look_at(str(tmp_path))
        assert job_of(str(tmp_path)) == str(job)

    lines = render_standing(standing).splitlines()
    assert [lines[0], *lines[2:4]] == [f"{tmp_path}: running", at, f"{job}: running"]
    assert lines[5].endswith("no unit is begun yet")
    values = standing.to_json()
    assert (values["state"], values["progress"]["jobs_done"], values["job"]["state"]) == ("running", 2, "running")
    assert (values["driver"]["pid"], values["progress"]["rate"]) == (os.getpid(), 0)
    assert values["progress"]["seconds_left"] is None
    assert job_of(str(job)) == str(job)
    with suppress(StoppedError), keep_status(str(job)):
        raise StoppedError("0 units")
    last = f"{job}: stopped as asked; its job is at work, and starts a driver or ends"
    assert last in render_standing(look_at(str(tmp_path)), submitted=True).splitlines()


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="not found, so this is not a run folder"):
        look_at(str(tmp_path))
    assert at_work(str(tmp_path)) is None
