"""The commands of jobs, as far as they need no cluster."""

import json
import re
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from dashboards import JOB, a_job, dashboard
from fakes import NAMES, build_fakes, job_config, mixed_shards

from capfilt.cli import cli
from capfilt.runs.lease import hold_lease
from pipelines import bootstrap
from workers.submission import folder_id


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """The folder of a run that is done."""
    mixed_shards(tmp_path / "in")
    bootstrap.run(job_config(tmp_path), build_fakes, NAMES, local=True)
    return tmp_path / "run"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text("input: [a.tar]\nrun: run\ncaptioner: c\nfilter: f\n")
    return path


def capfilt(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_the_status_of_a_run_that_is_done_is_read_from_its_folder(done):
    lines = capfilt("status", done).output.splitlines()

    assert lines[:2] == [f"{done}: done", "  samples   63 of 63 (100.0%)"]
    assert re.fullmatch(r"  since     0:00:\d\d ago: 9 units, [\d.]+ samples/s", lines[2])
    assert lines[3:5] == ["  kept      synthetic 100% of 48, web 50% of 30", "  failed    15 not_an_image"]


def test_a_start_that_found_nothing_to_do_tells_no_rate(done, tmp_path):
    bootstrap.run(job_config(tmp_path), build_fakes, NAMES, local=True)

    lines = capfilt("status", done).output.splitlines()

    assert lines[1] == "  samples   63 of 63 (100.0%)"
    assert re.fullmatch(r"  since     0:00:\d\d ago: nothing was left to do", lines[2])


def test_the_status_as_json_holds_all_that_scripts_need(done):
    values = json.loads(capfilt("status", done, "--json").output)

    assert (values["state"], values["driver"], values["jobs"]) == ("done", None, [])
    assert values["progress"]["statuses"] == {"not_an_image": 15, "ok": 48}
    assert {"rate", "seconds_left", "samples", "done", "candidates", "kept"} <= set(values["progress"])


def test_what_is_no_run_is_told(tmp_path):
    result = capfilt("status", tmp_path)

    assert result.exit_code == 1
    assert (
        result.output
        == f"Error: {tmp_path}/run.yaml: not found, so this is not a run folder; capfilt bootstrap makes one\n"
    )


def test_the_journal_stands_in_for_the_log_of_a_job(done):
    lines = capfilt("logs", done).output.splitlines()

    assert [line.split("  ")[1] for line in lines if line[0] != " "] == ["start", "end"]
    assert lines[0].endswith("  samples: 63")


def test_the_number_of_a_job_goes_with_its_cluster(done):
    result = capfilt("logs", done, "--attempt", 1)

    assert result.exit_code == 2
    assert "--attempt is the number of a job on a cluster: give its dashboard as --address" in result.output


@pytest.mark.parametrize(
    ("state", "remedy"),
    [("RUNNING", "its job is at work, and starts a driver or ends"), ("FAILED", "run the same again to go on")],
)
def test_a_driver_that_died_is_started_again_by_its_job_where_that_is_at_work(tmp_path, state, remedy):
    with hold_lease(str(tmp_path)):
        values = json.loads((tmp_path / "lease.json").read_text())
    (tmp_path / "lease.json").write_text(json.dumps(values | {"renewed": 0.0, "host": "gone"}))

    with dashboard(jobs=[a_job(f"capfilt-bootstrap-{folder_id(str(tmp_path))}-1", state)]) as port:
        result = capfilt("status", tmp_path, "--address", f"http://127.0.0.1:{port}")

    assert result.output.splitlines()[0] == f"{tmp_path}: its driver has died; {remedy}"


def test_there_is_nothing_to_stop_where_nobody_is_at_work(done):
    result = capfilt("stop", done)

    assert result.exit_code == 1
    assert "no job at work on it can be seen from here" in result.output
    assert not (done / "stop.json").exists()


def test_the_second_request_to_stop_allows_no_delay(tmp_path):
    with hold_lease(str(tmp_path)):
        first = capfilt("stop", tmp_path)
        assert json.loads((tmp_path / "stop.json").read_text())["at_once"] is False
        second = capfilt("stop", tmp_path)
        assert json.loads((tmp_path / "stop.json").read_text())["at_once"] is True

    assert (
        "finishes what is in hand\nrun or submit the same again to go on; stop again to end it at once" in first.output
    )
    assert "ends at once\nrun or submit the same again to go on\n" in second.output


def test_a_submission_without_a_cluster_is_a_wrong_command_line(config):
    result = capfilt("submit", config)

    assert result.exit_code == 2
    assert "give the dashboard of the cluster: --address http://HOST:8265" in result.output


@pytest.mark.parametrize("words", [["evaluate"], ["demo", "x"], ["bootstrap", "a", "b"]])
def test_what_cannot_be_submitted_is_a_wrong_command_line(config, words):
    result = capfilt("submit", *words, config, "--address", "http://127.0.0.1:1")

    assert result.exit_code == 2
    assert "JOB is one of bootstrap, export, pretrain, finetune" in result.output


def test_flags_of_a_bootstrap_go_to_its_driver_and_to_no_other_job(config, monkeypatch):
    sent = []

    class Dashboard:
        def submit(self, submission, python, retries, *, code):
            sent.append(submission.flags)
            return "capfilt-bootstrap-run-1"

    monkeypatch.setattr("capfilt.cli.jobs._jobs", lambda address: Dashboard())
    both = ["--force", "--retry-quarantined"]
    assert capfilt("submit", config, "--address", "http://127.0.0.1:1", *both).exit_code == 0
    assert set(sent[0]) == set(both)

    result = capfilt("submit", "pretrain", config, "--address", "http://127.0.0.1:1", "--force")
    assert result.exit_code == 2
    assert "--force is an option of bootstrap, and the job is pretrain" in result.output


def test_settings_are_checked_before_anything_is_sent(config):
    result = capfilt("submit", config, "--address", "http://127.0.0.1:1", "--set", "bach_size=3")

    assert result.exit_code == 1
    assert "did you mean batch_size?" in result.output


def test_a_dashboard_that_does_not_answer_is_told_at_once(config):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    result = capfilt("submit", config, "--address", f"http://127.0.0.1:{port}")

    assert result.exit_code == 75
    assert f"--address: 127.0.0.1:{port} does not answer" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(("status", "code"), [(503, 75), (500, 75), (404, 1)])
def test_a_dashboard_that_fails_is_told_from_one_that_refuses(config, status, code):
    with dashboard(status=status) as port:
        result = capfilt("status", config.parent, "--address", f"http://127.0.0.1:{port}")

    assert result.exit_code == code
    assert f"the cluster's Jobs API: Request failed with status code {status}" in result.output


def test_a_dashboard_that_takes_a_question_and_never_answers_is_told(config, monkeypatch):
    monkeypatch.setattr("workers.dashboard.ANSWER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = capfilt("status", config.parent, "--address", f"http://127.0.0.1:{listener.getsockname()[1]}")

    assert result.exit_code == 75
    assert "the cluster's Jobs API: " in result.output
    assert "Read timed out" in result.output


def test_what_a_job_writes_is_shown_and_its_end_is_that_of_the_command(config, monkeypatch):
    monkeypatch.setattr("workers.jobs.Jobs.submit", lambda *args, **options: JOB)
    with dashboard(state="SUCCEEDED", log="a line\n") as port:
        result = capfilt("submit", config, "--address", f"http://127.0.0.1:{port}", "--follow")

    assert result.exit_code == 0
    assert result.output.endswith(f"\na line\n{JOB}: SUCCEEDED\n")


@pytest.mark.parametrize("command", ["submit", "logs"])
def test_a_log_that_is_lost_for_good_ends_with_how_to_look_at_it_again(config, monkeypatch, command):
    monkeypatch.setattr("workers.jobs.PATIENCE", 0)
    monkeypatch.setattr("workers.jobs.POLL", 0)
    folder = config.parent / "a run"
    job = f"capfilt-bootstrap-{folder_id(str(folder))}-1"
    words = ["submit", config, "--set", f"run={folder}"] if command == "submit" else ["logs", folder]
    with dashboard(jobs=[] if command == "submit" else [a_job(job)], log="a line\n", then="break") as port:
        address = f"http://127.0.0.1:{port}"
        result = capfilt(*words, "--address", address, "--follow")

    assert result.exit_code == 75
    *_, line, warning, error = result.output.splitlines()
    assert line == "a line"
    assert f" WARNING {job}: the cluster's Jobs API: " in warning
    assert error.startswith("Error: the cluster's Jobs API: ")
    assert error.endswith(
        f"; the job goes on if its head does; to look again: capfilt logs '{folder}' --address {address} --follow"
    )


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "ray://127.0.0.1:10001", "auto", "os.path://x"])
def test_an_address_that_is_no_dashboard_is_told(config, address):
    result = capfilt("status", config.parent, "--address", address)

    assert result.exit_code == 1
    assert f"--address: takes the URL of the dashboard, such as http://127.0.0.1:8265; found {address}" in result.output


def test_an_address_with_credentials_is_refused(config):
    result = capfilt("submit", config, "--address", "http://me:open-sesame@127.0.0.1:8265")

    assert result.exit_code == 1
    assert "a URL with credentials in it" in result.output
    assert "open-sesame" not in result.output


@pytest.mark.parametrize("command", ["status", "logs", "stop"])
def test_a_file_where_a_run_is_wanted_is_told(config, command):
    result = capfilt(command, config)

    assert result.exit_code == 1
    assert result.output == f"Error: {config}: is a file; give the folder of a run\n"
