import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from models import small_checkpoint

from capfilt.cli import cli
from capfilt.cli.options import JOBS
from capfilt.med.checkpoints import save
from capfilt.runs.lease import hold_lease
from capfilt.world.noise import NoiseRates
from capfilt.world.shards import World, write_world

CONFIG = """
input: [{root}/web]
run: {root}/run
captioner: {root}/captioner
filter: {root}/filter
batch_size: 4
unit_size: 8
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a config, two small shards and two small checkpoints."""
    write_world(tmp_path / "web", World(0, "web", NoiseRates(), 32), 12, 6)
    save(small_checkpoint(tmp_path / "v", seed=1, encoder=False), tmp_path / "captioner")
    save(small_checkpoint(tmp_path / "v", seed=2, decoder=False), tmp_path / "filter")
    (tmp_path / "job.yaml").write_text(CONFIG.format(root=tmp_path))
    return tmp_path


def capfilt(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_the_main_job_from_shards_to_clean_shards(root):
    first = capfilt("bootstrap", root / "job.yaml", "--local")
    assert first.exit_code == 0, first.output
    assert capfilt("verify", root / "run").output.endswith("every sample is accounted for\n")

    figures = json.loads(capfilt("stats", root / "run", "--json").output)
    assert figures["samples"] == sum(figures["statuses"].values())
    assert figures["sources"]["synthetic"]["scored"] == figures["statuses"]["ok"]
    assert "synthetic" in capfilt("stats", root / "run").output

    second = capfilt("bootstrap", root / "job.yaml", "--local")
    assert second.exit_code == 0
    assert f"{figures['samples']} samples done before" in second.output


def test_another_policy_needs_no_model(root):
    assert capfilt("bootstrap", root / "job.yaml", "--local", "--set", "export=false").exit_code == 0
    (root / "captioner" / "model.safetensors").unlink()
    (root / "export.yaml").write_text(f"run: {root}/run\npolicy: {{name: all, web_itm: 0, synthetic_itm: 0}}\n")

    result = capfilt("export", root / "export.yaml")

    assert result.exit_code == 0, result.output
    (folder,) = (root / "run" / "clean").glob("all-*")
    assert (folder / "_SUCCESS").exists()


def test_a_flipped_byte_is_found_and_named(root):
    assert capfilt("bootstrap", root / "job.yaml", "--local").exit_code == 0
    victim = next((root / "run" / "ledger").rglob("00000.candidates.parquet"))
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)

    result = capfilt("verify", root / "run")

    assert result.exit_code == 1
    assert victim.name in result.output


def test_what_is_missing_while_a_driver_is_at_work_is_told_to_be_checked_again(root):
    assert capfilt("bootstrap", root / "job.yaml", "--local").exit_code == 0
    next((root / "run" / "ledger").rglob("00000.json")).unlink()

    with hold_lease(str(root / "run")):
        during = capfilt("verify", root / "run")
    after = capfilt("verify", root / "run")

    assert (during.exit_code, after.exit_code) == (1, 1)
    assert during.stdout == after.stdout
    assert re.fullmatch(r"pid .* is at work on it: check again when it has ended\n", during.stderr)
    assert after.stderr == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("captioner={root}/nowhere", "no checkpoint at"),
        ("captioner={root}/filter", "has no decoder; it can serve as filter, not as captioner"),
        ("filter={root}/captioner", "no encoder and no ITM head; it can serve as captioner, not as filter"),
        ("input=[{root}/empty]", "empty"),
        ("bach_size=2", "did you mean batch_size?"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_line(root, change, message):
    (root / "empty").mkdir()
    result = capfilt("bootstrap", root / "job.yaml", "--local", "--set", change.format(root=root))
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1
    assert "Traceback" not in result.output


def test_other_settings_on_a_run_are_refused_with_the_keys(root):
    assert capfilt("bootstrap", root / "job.yaml", "--local").exit_code == 0
    result = capfilt("bootstrap", root / "job.yaml", "--local", "--set", "sampling.top_p=0.5")
    assert result.exit_code == 1
    assert "sampling.top_p" in result.output


def test_a_damaged_shard_fails_alone_with_exit_code_3(root):
    shard = root / "web" / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:-3000])
    result = capfilt("bootstrap", root / "job.yaml", "--local")
    assert result.exit_code == 3
    assert "00001.tar" in result.output
    assert json.loads(capfilt("stats", root / "run", "--json").output)["shards"] == 1


def test_a_job_under_nohup_outlives_its_terminal_and_leaves_a_log_of_whole_lines(root, tmp_path):
    shard = root / "web" / "00001.tar"
    shard.write_bytes(shard.read_bytes()[:-3000])
    often = "from capfilt import progress; progress.INTERVAL = 0.0; from capfilt.cli import cli; cli()"
    command = ["nohup", sys.executable, "-c", often, "--log-format", "json", "bootstrap", f"{root}/job.yaml", "--local"]

    with (tmp_path / "log").open("wb") as log:
        job = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
        while not (tmp_path / "log").stat().st_size and job.poll() is None:  # until it is at work
            time.sleep(0.01)
        job.send_signal(signal.SIGHUP)

        assert job.wait(timeout=120) == 3
    text = (tmp_path / "log").read_bytes()
    assert b"\r" not in text
    records = [json.loads(line) for line in text.decode().splitlines() if not line.startswith("nohup: ")]
    told = [record for record in records if record["logger"] == "capfilt.progress"]
    assert " of 6 samples, " in told[-1]["message"]
    assert {record["run"] for record in told} == {f"{root}/run"}
    assert records[-1]["level"] == "error"
    assert "00001.tar" in records[-1]["message"]


WAITING = """
import signal
import time
from pipelines import bootstrap
from capfilt.cli import cli

def wait(*_):
    print("at work", flush=True)
    while True:
        time.sleep(0.1)  # signal.pause() would miss a signal that comes right before it

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and under nohup
bootstrap.plan_shards = wait
cli()
"""


@pytest.mark.parametrize(
    ("numbers", "code"), [([signal.SIGTERM], 143), ([signal.SIGHUP], 129), ([signal.SIGINT, signal.SIGINT], 1)]
)
def test_a_job_that_is_ended_at_once_says_how_it_goes_on(root, numbers, code):
    command = [sys.executable, "-c", WAITING, "bootstrap", f"{root}/job.yaml", "--local"]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert job.stderr is not None
    assert job.stdout.readline() == "at work\n"

    *before, last = numbers
    for number in before:
        job.send_signal(number)
        while "press Ctrl-C again" not in job.stderr.readline():
            pass
    job.send_signal(last)

    told = job.communicate(timeout=120)[1]
    assert job.returncode == code
    assert told.splitlines()[-1] == "ended at once; run the same again to go on"
    assert "Aborted" not in told


def test_a_reader_that_has_seen_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        command = [sys.executable, "-m", "capfilt.cli", "config", "bootstrap"]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=120)

    assert (done.returncode, done.stderr) == (1, "")


def test_the_log_is_of_the_format_that_the_environment_names(root):
    result = CliRunner(env={"CAPFILT_LOG_FORMAT": "json"}).invoke(cli, ["stats", f"{root}/none"])

    assert result.exit_code == 1
    assert json.loads(result.stderr)["message"].startswith("Error: ")


def test_jobs_are_listed_once_where_one_is_asked_for():
    words = capfilt("config", "--help").output.replace(",", " ").replace(".", " ").split()
    assert {*JOBS} <= {*words}
    refused = capfilt("config", "bootstrp").output
    assert [refused.count(f"'{job}'") for job in JOBS] == [1] * len(JOBS)
    assert "config [OPTIONS] JOB [CONFIG]\n" in refused


def test_config_shows_keys_and_checks_values(root):
    assert "top_p: 0.9  # minimum probability mass" in capfilt("config", "bootstrap").output
    shown = capfilt("config", "bootstrap", root / "job.yaml", "--set", "seed=7").output
    assert "\nseed: 7\n" in shown


@pytest.mark.parametrize("task", ["captioner", "filter", "vqa", "nlvr2"])
def test_config_takes_what_finetune_takes(task, tmp_path):
    file = Path(__file__).parent.parent / "configs" / f"finetune_{task}.yaml"
    shown = capfilt("config", "finetune", file, "--set", "seed=7")
    assert shown.exit_code == 0, shown.output
    values = yaml.safe_load(shown.output)
    assert (values["role"], values["seed"]) == (task, 7)
    refused = capfilt("config", "finetune", file, "--set", "chekpoint=start")
    assert refused.exit_code == 1
    assert "chekpoint: unknown key; did you mean checkpoint?" in refused.output


@pytest.mark.parametrize("command", cli.commands)
def test_every_command_has_help_with_an_example(command):
    result = capfilt(command, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    capfilt {command}" in result.output


def test_a_wrong_command_line_is_exit_code_2():
    assert capfilt("bootstrap").exit_code == 2


def test_a_demo_without_its_config_is_a_wrong_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = capfilt("demo")
    assert result.exit_code == 2
    assert "'configs/demo.yaml' does not exist" in result.output


def test_the_installed_command_runs():
    done = subprocess.run([sys.executable, "-m", "capfilt.cli", "--version"], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "command", ["scan --sample", "stats --share", "inspect --share", "report --megabytes", "calibrate --error"]
)
@pytest.mark.parametrize("value", ["nan", "-1", "-1e-320", "inf", "1e308"])
def test_a_number_that_says_no_share_is_a_wrong_command_line(command, value):
    name, option = command.split()
    result = CliRunner().invoke(cli, [name, "runs/cc12m", f"{option}={value}"])
    assert (result.exit_code, f"Invalid value for '{option}'" in result.output) == (2, True)
