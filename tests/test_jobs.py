"""Jobs on a cluster by its Jobs API: waited for through outages of the dashboard, here of a server that stands for it.

On a real cluster, from the command line, one is submitted, watched, stopped, killed and resumed.
"""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dashboards import JOB, a_job, dashboard
from drivers import tables
from head import start_head
from models import small_checkpoint

from capfilt.cli import cli
from capfilt.config import BootstrapConfig
from capfilt.errors import JobError, NoAnswerError
from capfilt.med.checkpoints import save
from capfilt.runs import load_run
from capfilt.verify import verify
from capfilt.world.noise import NoiseRates
from capfilt.world.shards import World, write_world
from workers import jobs
from workers.jobs import Jobs, JobState
from workers.submission import Submission, folder_id

SECRET = "open-sesame-of-the-submitter"
CONFIG = """
input: [web]
run: run
captioner: captioner
filter: filter
batch_size: 4
unit_size: 4
cluster: {workers: 2, cpus_per_worker: 0.5}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a config of relative paths, shards, and checkpoints that take a while for each unit."""
    write_world(tmp_path / "web", World(0, "web", NoiseRates(), 32), 480, 60)
    save(small_checkpoint(tmp_path / "v", seed=1, encoder=False), tmp_path / "captioner")
    save(small_checkpoint(tmp_path / "v", seed=2, decoder=False), tmp_path / "filter")
    (tmp_path / "job.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def address(root, monkeypatch) -> Iterator[str]:
    with start_head(root) as url:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", url)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.chdir(root)
        yield url


def capfilt(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def submit(*more: str) -> Result:
    return capfilt("submit", "job.yaml", "--python", sys.executable, "--set", "sampling.captions=24", *more)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"{what}\n{capfilt('logs', 'run').output}"
        time.sleep(0.3)


def state() -> dict[str, object]:
    shown = capfilt("status", "run", "--json")
    return json.loads(shown.output) if shown.exit_code == 0 else {"state": None, "progress": None, "jobs": []}


def units(driver_of: object = None) -> int:
    progress = state()["progress"]
    return progress["units"] if progress else 0


def job_state(attempt: int) -> str:
    return next((job["state"] for job in state()["jobs"] if job["attempt"] == attempt), "")


@contextmanager
def an_outage(monkeypatch, back: Callable[[int], AbstractContextManager[object]], **first: object) -> Iterator[Jobs]:
    """Give the jobs of a dashboard that goes away at the third poll, is away for three, and comes `back`."""
    with ExitStack() as there, ExitStack() as later:
        port = there.enter_context(dashboard(**first))
        asked = []

        def next_poll(seconds: float) -> None:
            asked.append(seconds)
            if len(asked) == 3:
                there.close()
            if len(asked) == 6:
                later.enter_context(back(port))

        monkeypatch.setattr(jobs.time, "sleep", next_poll)
        yield Jobs(f"http://127.0.0.1:{port}")


def wait_through_an_outage(monkeypatch, back: Callable[[int], AbstractContextManager[object]]) -> JobState:
    with an_outage(monkeypatch, back) as cluster:
        return cluster.wait(JOB)


def test_a_dashboard_that_restarts_does_not_end_the_wait_and_is_told_once(monkeypatch, caplog):
    job = wait_through_an_outage(monkeypatch, lambda port: dashboard(port, "SUCCEEDED"))

    assert (job.id, job.state, job.attempt) == (JOB, "SUCCEEDED", 1)
    told = [message for message in caplog.messages if "retrying for" in message]
    assert len(told) == 1
    assert told[0].startswith(f"{JOB}: the cluster's Jobs API: ")
    assert told[0].endswith("; retrying for 10 minutes")


def test_a_job_that_its_cluster_has_forgotten_is_not_waited_for(monkeypatch):
    with pytest.raises(JobError, match="status code 404"):
        wait_through_an_outage(monkeypatch, lambda port: dashboard(port, status=404))


def test_patience_with_a_dashboard_ends(monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 0)
    with pytest.raises(NoAnswerError, match="the cluster's Jobs API"):
        wait_through_an_outage(monkeypatch, lambda port: nullcontext())


def log_through_an_outage(monkeypatch, first: dict[str, object], back: dict[str, object]) -> str:
    with an_outage(monkeypatch, lambda port: dashboard(port, **back), **first) as cluster:
        return "".join(cluster.follow(JOB))


@pytest.mark.parametrize("then", ["close", "break"])
def test_a_log_that_breaks_off_is_gone_on_with_where_it_was_until_its_job_ends(monkeypatch, caplog, then):
    """A dashboard that is ended in good order closes the connection as if the log were at its end."""
    shown = log_through_an_outage(
        monkeypatch, {"log": "one\ntw", "then": then}, {"log": "one\ntwo\nthree\n", "state": "SUCCEEDED"}
    )

    assert shown == "one\ntwo\nthree\n"
    told = [message for message in caplog.messages if "retrying for" in message]
    assert len(told) == 1
    assert told[0].startswith(f"{JOB}: the cluster's Jobs API: ")


def followed(port: int) -> Iterator[str]:
    return Jobs(f"http://127.0.0.1:{port}").follow(JOB)


@pytest.fixture
def hasty(monkeypatch) -> None:
    """A job is looked at as soon as its log says nothing."""
    monkeypatch.setattr(jobs, "QUIET", 0.05)


@pytest.mark.usefixtures("hasty")
def test_a_log_whose_dashboard_is_gone_without_a_sign_is_gone_on_with(monkeypatch):
    with ExitStack() as first, ExitStack() as second:
        port = first.enter_context(dashboard(log="one\n", then="wait"))
        back = partial(dashboard, port, "SUCCEEDED", log="one\ntwo\n")
        monkeypatch.setattr(jobs.time, "sleep", lambda seconds: second.enter_context(back()))
        log = followed(port)
        assert next(log) == "one\n"
        first.close()

        assert "".join(log) == "two\n"


@pytest.mark.usefixtures("hasty")
def test_a_job_that_writes_nothing_is_no_outage(caplog):
    with dashboard(log="one\n", then="wait") as port:
        log = followed(port)

        assert [next(log) for _ in range(4)] == ["one\n", "", "", ""]
        log.close()
    assert caplog.messages == []


@pytest.mark.usefixtures("hasty")
def test_a_log_that_stays_open_behind_the_end_of_its_job_is_at_its_end():
    with dashboard(state="SUCCEEDED", log="one\n", then="wait") as port:
        assert "".join(followed(port)) == "one\n"


def test_a_job_whose_driver_never_started_has_its_reason_in_place_of_a_log():
    why = "runtime_env setup failed: no environment\n[Node] Traceback:\n  File a\nOSError: no package gcs://x.zip.\n"
    with dashboard(jobs=[a_job(JOB, "FAILED", message=why)]) as port:
        told = "".join(followed(port))

    assert told.startswith(f"{JOB}: FAILED, submitted ")
    assert told.endswith(": runtime_env setup failed: no environment ... OSError: no package gcs://x.zip\n")


def test_patience_with_a_log_ends(monkeypatch):
    """The dashboard is there, but closes each time what the log comes through."""
    monkeypatch.setattr(jobs, "PATIENCE", 0)
    with pytest.raises(NoAnswerError, match="the cluster's Jobs API: the log ends before its job does"):
        log_through_an_outage(monkeypatch, {"log": "one\n"}, {})


FOLDER = "/runs/a"


@pytest.fixture
def known():
    """Return a function that gives the jobs of a cluster which knows some, each told as (name, state, values)."""
    with ExitStack() as stack:

        def connect(*jobs: tuple[str, str, dict[str, object]]) -> Jobs:
            port = stack.enter_context(dashboard(jobs=[a_job(name, state, **values) for name, state, values in jobs]))
            return Jobs(f"http://127.0.0.1:{port}")

        yield connect


def name(number: int, job: str = "bootstrap", folder: str = FOLDER) -> str:
    return f"capfilt-{job}-{folder_id(folder)}-{number}"


def test_the_jobs_of_a_folder_are_found_the_newest_first(known):
    jobs = known(
        (name(1), "FAILED", {"start_time": 1000}),
        (name(10), "RUNNING", {"start_time": 3000}),
        (name(9), "STOPPED", {"start_time": 3000}),  # in the same millisecond: the higher number is the later one
        (name(2, folder="/runs/b"), "RUNNING", {"start_time": 9000}),
        ("raysubmit_7", "RUNNING", {"start_time": 9000}),
    )

    assert [job.attempt for job in jobs.of(FOLDER)] == [10, 9, 1]
    assert jobs.find(FOLDER).id == name(10)
    assert jobs.find(FOLDER, 9).id == name(9)
    with pytest.raises(JobError, match=r"^/runs/a: no job number 2 of it on this cluster"):
        jobs.find(FOLDER, 2)
    with pytest.raises(JobError, match=r"^/runs/c: no job of it on this cluster.* its journal is shown without"):
        jobs.find("/runs/c")


def test_the_log_is_that_of_a_job_at_work_though_another_began_later(known):
    bootstrap, export = name(1), name(1, "export")
    jobs = known((bootstrap, "RUNNING", {"start_time": 1000}), (export, "FAILED", {"start_time": 2000}))

    assert jobs.of(FOLDER)[0].id == export
    assert jobs.find(FOLDER).id == jobs.find(FOLDER, 1).id == bootstrap


def test_the_colours_of_rays_notices_are_left_out_of_a_log():
    with dashboard(state="SUCCEEDED", log="\x1b[33m(raylet)\x1b[0m \x1b]0;title\x07 lost\n") as port:
        assert "".join(Jobs(f"http://127.0.0.1:{port}").follow(JOB)) == "(raylet) \\x1b]0;title\\x07 lost\n"


@pytest.mark.parametrize(("code", "state"), [(4, "STOPPED"), (129, "STOPPED"), (143, "STOPPED"), (3, "FAILED")])
def test_a_driver_that_was_asked_to_end_is_stopped_and_not_failed(known, code, state):
    told = {"driver_exit_code": code, "start_time": 1500, "end_time": 2500, "message": "s3://a:b@c broke\nat once"}
    job = known((name(1), "FAILED", told)).find(FOLDER)

    assert (job.state, job.exit_code, job.is_over) == (state, code, True)
    assert (job.started, job.ended, job.message) == (1.5, 2.5, "s3://***@c broke ... at once")
    assert re.fullmatch(rf"{name(1)}: {state}, exit code {code}, submitted 19[\d-]+ [\d:]+:01[+-][\d:]+", job.summary)


def submit_to(jobs: Jobs) -> str:
    config = BootstrapConfig(input=["in"], run=FOLDER, captioner="c", filter="f")
    return jobs.submit(Submission("bootstrap", config, FOLDER), "python3", 2, code=False)


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_second_job_on_a_folder_is_refused_while_one_is_at_work(known, state):
    jobs = known((name(1), "FAILED", {}), (name(2), state, {}))

    with pytest.raises(JobError, match=rf"^/runs/a: {name(2)} is at work on it \({state}\)"):
        submit_to(jobs)


def test_the_next_job_on_a_folder_has_the_next_number_of_its_kind(known):
    jobs = known((name(1), "FAILED", {}), (name(10), "SUCCEEDED", {}), (name(12, "export"), "RUNNING", {}))

    assert submit_to(jobs) == name(11)
    job = jobs.find(FOLDER, 11)
    assert (job.id, job.state, job.exit_code, job.ended) == (name(11), "RUNNING", None, None)
    assert not job.is_over
    assert job.summary.startswith(f"{name(11)}: RUNNING, submitted ")


def test_the_first_job_on_a_folder_has_number_1(known):
    assert submit_to(known()) == name(1)


def test_a_job_that_is_ended_at_once_is_stopped(known):
    jobs = known((name(1), "RUNNING", {}))
    jobs.end(name(1))

    assert jobs.find(FOLDER).state == "STOPPED"


@pytest.mark.slow
def test_a_job_is_submitted_watched_stopped_resumed_killed_and_done(root, address):
    first = submit()
    assert first.exit_code == 0, first.output
    name = re.match(r"submitted (capfilt-bootstrap-run-[0-9a-f]{12}-1)\n", first.output)[1]

    twice = submit()
    assert twice.exit_code == 1
    assert re.match(
        rf"Error: {root}/run: {name} is at work on it \((PENDING|RUNNING)\); wait until it ends", twice.output
    )

    wait_until(lambda: len(list((root / "run").glob("ledger/*/*/*.json"))) > 1, "nothing is committed")
    assert re.search(rf"run: running\n  driver    pid \d+ on .*\n(.*\n)*  job       {name}: RUNNING", status())
    assert "Running entrypoint" in capfilt("logs", "run").output
    assert f"{root}/run: pid " in capfilt("stop", "run", "--wait").output
    wait_until(lambda: job_state(1) == "STOPPED", "the job does not stop")
    before = len(list((root / "run").glob("ledger/**/*.json")))
    assert "stopped as asked, and all that is done is committed; to go on, run the same again" in (
        capfilt("logs", "run").output
    )
    assert state()["state"] == "stopped"
    assert 0 < state()["progress"]["done"] < state()["progress"]["samples"]

    assert f"submitted {name[:-1]}2\n" in submit().output
    wait_until(lambda: state()["state"] == "running", "the job does not go on")
    driver = state()["driver"]["pid"]
    os.kill(driver, signal.SIGKILL)
    followed = capfilt("logs", "run", "--follow", "--attempt", "2").output
    assert "the driver was killed by signal 9; it is restarted in 5 s (3 restarts left)" in followed
    wait_until(lambda: job_state(2) == "SUCCEEDED", "the job does not succeed")
    assert before > 0
    assert re.search(r"[1-9]\d* samples done before", followed)

    check_no_secret(root, followed + status())
    assert verify(load_run(f"{root}/run")) == []
    local = capfilt("bootstrap", "job.yaml", "--local", "--set", "sampling.captions=24", "--set", "run=calm/run")
    assert local.exit_code == 0, local.output
    assert tables(root) == tables(root / "calm")


def status() -> str:
    return capfilt("status", "run").output


def check_no_secret(root: Path, shown: str) -> None:
    """What the submitter's environment holds stands nowhere: not in Ray's record of the jobs, logs, or run files."""
    from ray.job_submission import JobSubmissionClient

    record = str(JobSubmissionClient().list_jobs())
    assert "capfilt-bootstrap-run-" in record
    assert SECRET not in record + shown
    assert not [path for path in (root / "run").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
