"""The driver of a submitted job is started again when that may help, and only then."""

import shlex
from pathlib import Path

import pytest

from capfilt.config import BootstrapConfig, Config, ExportConfig
from capfilt.runs import Run
from capfilt.runs.stop import request_stop
from workers import entrypoint, submission

BOOTSTRAP = BootstrapConfig(input=["a.tar"], run="run", captioner="c", filter="f")
EXPORT = ExportConfig(run="run")

SCRIPT = """
import os, signal, sys
from pathlib import Path
starts = Path("starts")
with starts.open("a") as file:
    file.write(".")
codes = sys.argv[1].split(",")
code = codes[min(len(starts.read_text()), len(codes)) - 1]
os.kill(os.getpid(), signal.SIGKILL) if code == "kill" else sys.exit(int(code))
"""


@pytest.fixture
def drivers(tmp_path, monkeypatch):
    """Run drivers that end in given ways, one after the other, and return the exit code and how many were started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(entrypoint, "_DRIVER", SCRIPT)
    monkeypatch.setattr(entrypoint, "FIRST_WAIT", 0.01)

    def run(codes: str, retries: int = 3, job: str = "bootstrap", config: Config = BOOTSTRAP) -> tuple[int, int]:
        line = submission.entrypoint(submission.prepare(job, config), "python", retries, tmp_path)
        _, _, _, _, *words = shlex.split(line)  # python -m workers.entrypoint JOB
        return entrypoint.main([codes, *words]), len(Path("starts").read_text())

    return run


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 15, 129, 130, 143])
def test_what_another_driver_would_come_to_as_well_is_an_end(drivers, code):
    assert drivers(f"{code},0") == (code, 1)


@pytest.mark.parametrize("code", ["kill", 70, 75, 139])
def test_a_driver_that_died_is_started_again(drivers, code, capsys):
    assert drivers(f"{code},{code},0") == (0, 3)
    assert " s (3 restarts left)" in capsys.readouterr().err


def test_it_is_started_again_a_counted_number_of_times(drivers, capsys):
    assert drivers("kill", retries=2) == (137, 3)
    assert "the driver was killed by signal 9 and is not restarted; submit the job" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("job", "config", "asked_in"),
    [("bootstrap", BOOTSTRAP, "run"), ("export", EXPORT, Run("run", "").exporting(EXPORT))],
)
def test_one_that_died_while_it_was_asked_to_stop_is_not_started_again(drivers, job, config, asked_in):
    request_stop(asked_in)

    assert drivers("kill,0", job=job, config=config) == (4, 1)


def test_a_request_to_stop_that_comes_before_the_next_driver_is_started_holds(drivers, monkeypatch):
    monkeypatch.setattr(entrypoint.time, "sleep", lambda seconds: request_stop("run"))

    assert drivers("kill,0") == (4, 1)


def test_a_folder_that_is_not_there_is_told(drivers, tmp_path, capsys):
    entrypoint.main(["0", "job.yaml", "--asked-in", str(tmp_path), "--folder", "/no/such/place", "--retries", "0"])

    assert "/no/such/place is not on this machine; relative paths in the settings start from" in capsys.readouterr().err
