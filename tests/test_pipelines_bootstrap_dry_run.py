"""A dry run of the bootstrap job: everything is looked at, nothing is written."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from dry_runs import dry_run, tree
from fakes import NAMES, build_fakes, job_config, mixed_shards
from models import small_checkpoint

from capfilt.config import BootstrapConfig, dump
from capfilt.dry_run import DryRun
from capfilt.errors import CheckpointError, ConfigError
from capfilt.forecast.survey import SURVEYED
from capfilt.med.checkpoints import save
from capfilt.shards import write_tar
from pipelines import bootstrap, bootstrap_dry_run

Job = Callable[..., Path]


@pytest.fixture
def job(tmp_path) -> Job:
    """Write the config of a job on three shards, with small checkpoints, and return its path."""
    mixed_shards(tmp_path / "in")
    save(small_checkpoint(tmp_path / "v", seed=1, encoder=False), tmp_path / "captioner")
    save(small_checkpoint(tmp_path / "v", seed=2, decoder=False), tmp_path / "filter")

    def write(**changes: object) -> Path:
        models = {name: str(tmp_path / name) for name in ("captioner", "filter")}
        (tmp_path / "job.yaml").write_text(dump(job_config(tmp_path, **models, **changes)))
        return tmp_path / "job.yaml"

    return write


def look(config: BootstrapConfig, **options: bool) -> DryRun:
    folder = Path(config.run).parent
    before = tree(folder)
    found = bootstrap_dry_run.dry_run(config, lambda _: [], lambda _: NAMES, local=True, **options)
    assert tree(folder) == before
    return found


def test_a_new_run_is_told_with_its_shards_units_models_and_places(tmp_path, job):
    result = dry_run(tmp_path, "bootstrap", job(export=True), "--local")
    assert result.exit_code == 0, result.output
    parameters = sum(p.numel() for p in small_checkpoint(tmp_path / "v", encoder=False).model.parameters())
    told = result.output.splitlines()
    assert told[0] == "bootstrap, dry run: nothing was written"
    assert told[1] == f"  model    captioner {tmp_path}/captioner: {parameters:,} parameters, 32 pixels"
    assert told[4].startswith("  input    3 shards, 63 samples, ")
    assert told[5:7] == ["  run      a new one", "  does     63 samples in 9 units of up to 8"]
    assert told[7].startswith(f"  ledger   {tmp_path}/run/ledger, up to ")
    assert told[8].startswith(f"  clean    {tmp_path}/run/clean/default-")
    assert told[9].startswith(f"  writes   {tmp_path}/run, up to ")


def test_what_is_done_is_not_done_again(tmp_path):
    mixed_shards(tmp_path / "in")
    config = job_config(tmp_path)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    (ledger,) = (tmp_path / "run/ledger").iterdir()
    for path in ledger.glob("00001.*"):
        path.unlink()

    told = dict(look(config).facts)

    assert told["run"] == "goes on; 42 of 63 samples are done"
    assert told["does"] == "21 samples in 3 units of up to 8"
    assert told["ledger"].startswith(f"{ledger}, up to ")


def test_other_settings_and_other_inputs_are_refused_as_by_the_job(tmp_path):
    mixed_shards(tmp_path / "in")
    bootstrap.run(job_config(tmp_path), build_fakes, NAMES, local=True)

    (problem,) = look(job_config(tmp_path, seed=5)).problems
    assert "seed: 0 in the run, 5 here" in problem
    (tmp_path / "in/00001.tar").unlink()
    (problem,) = look(job_config(tmp_path)).problems
    assert "the inputs are not those that the run was planned with" in problem


def test_a_driver_at_work_is_named_unless_forced(tmp_path):
    mixed_shards(tmp_path / "in")
    config = job_config(tmp_path)
    bootstrap.run(config, build_fakes, NAMES, local=True)
    owner = {"id": "x", "host": f"not-{socket.gethostname()}", "pid": os.getpid(), "processes": ""}
    lease = json.dumps(owner | {"started": time.time(), "renewed": time.time()})
    (tmp_path / "run/lease.json").write_text(lease)

    (problem,) = look(config).problems
    assert f"another driver is at work on this run: pid {os.getpid()} on not-" in problem
    assert look(config, force=True).problems == []


def test_every_problem_is_told_at_once(tmp_path, job):
    path = job(cluster={"address": "127.0.0.1:1"})
    (tmp_path / "filter/model.safetensors").write_bytes((tmp_path / "filter/model.safetensors").read_bytes()[:-8])
    shard = tmp_path / "in/00001.tar"
    shard.write_bytes(shard.read_bytes()[:9000])

    result = dry_run(tmp_path, "bootstrap", path)

    problems = [line for line in result.output.splitlines() if line.startswith("problem: ")]
    assert result.exit_code == 1
    assert len(problems) == 3
    assert "filter/model.safetensors: cannot be read as tensors" in problems[0]
    assert "127.0.0.1:1 does not answer" in problems[1]
    assert "00001.tar" in problems[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ((), "cluster.gpus_per_worker: 0, which gives a worker no GPU for device.kind: cuda; set it to 1, or"),
        (("--local",), "device.kind: cuda, but torch sees no GPU here; set device.kind: cpu"),
    ],
)
def test_models_without_the_gpu_that_they_need_are_a_problem(tmp_path, job, where, message):
    result = dry_run(tmp_path, "bootstrap", job(device={"kind": "cuda"}), *where)
    assert result.exit_code == 1
    assert f"problem: {message}" in result.output


def test_of_many_shards_that_cannot_be_used_the_first_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap_dry_run, "LISTED", 1)
    (tmp_path / "in").mkdir()
    for n in range(3):
        (tmp_path / f"in/{n}.tar").write_bytes(b"cut")

    first, others = look(job_config(tmp_path)).problems

    assert first.startswith(f"{tmp_path}/in/0.tar: ")
    assert others == "2 more that cannot be used; capfilt scan lists all"


def test_workers_without_a_gpu_are_refused_before_ray_starts(tmp_path):
    mixed_shards(tmp_path / "in")
    with pytest.raises(ConfigError, match=r"^cluster\.gpus_per_worker: 0, which gives a worker no GPU"):
        bootstrap.run(job_config(tmp_path, device={"kind": "cuda"}), build_fakes, NAMES)
    assert not (tmp_path / "run" / "run.yaml").exists()


def test_what_several_checks_find_is_told_once(tmp_path):
    mixed_shards(tmp_path / "in")
    (tmp_path / "run").write_text("a file")
    assert look(job_config(tmp_path)).problems == [f"{tmp_path}/run: is a file; give the folder of a run"]


def test_a_checkpoint_that_cannot_play_its_part_is_a_problem(tmp_path, job):
    result = dry_run(tmp_path, "bootstrap", job(), "--local", "--set", f"captioner={tmp_path}/filter")
    assert result.exit_code == 1
    assert "has no decoder; it can serve as filter, not as captioner" in result.output


def test_no_weight_is_read_of_a_new_run(tmp_path):
    mixed_shards(tmp_path / "in")

    def refuse(_: BootstrapConfig) -> dict[str, str]:
        raise CheckpointError("the files were hashed")

    assert bootstrap_dry_run.dry_run(job_config(tmp_path), lambda _: [], refuse, local=True).problems == []


def test_of_very_many_shards_some_are_looked_at(tmp_path):
    mixed_shards(tmp_path / "in", shards=1, samples=2)
    for number in range(1, SURVEYED + 50):
        (tmp_path / "in" / f"{number:05d}.tar").hardlink_to(tmp_path / "in/00000.tar")

    told = dict(bootstrap_dry_run.dry_run(job_config(tmp_path), lambda _: [], lambda _: NAMES, local=True).facts)

    assert told["input"].startswith(
        f"{SURVEYED + 50} shards, about {2 * (SURVEYED + 50)} samples by {SURVEYED} of them"
    )
    assert told["does"] == f"{2 * (SURVEYED + 50)} samples in units of up to 8"


def test_members_that_are_no_part_of_a_sample_are_told(tmp_path):
    mixed_shards(tmp_path / "in")
    assert "passed over" not in dict(look(job_config(tmp_path)).facts)
    write_tar(tmp_path / "in/a.tar", [("0.xcf", b"x")])

    told = dict(look(job_config(tmp_path)).facts)

    assert told["passed over"] == "members of tars that are no part of a sample: 1 .xcf (a.tar: 0.xcf)"


def test_a_batch_size_that_is_to_be_found_is_told(tmp_path):
    mixed_shards(tmp_path / "in")
    told = dict(look(job_config(tmp_path, batch_size=0)).facts)
    assert told["batches"] == "their size is found by a trial when the run begins"
    assert told["does"] == "63 samples in 9 units of up to 8"


def test_one_checkpoint_for_both_roles_is_warned_of_and_keeps_nothing_from_its_work(tmp_path):
    mixed_shards(tmp_path / "in")

    apart, both = look(job_config(tmp_path)), look(job_config(tmp_path, captioner="c", filter="c"))

    assert "warning" not in dict(apart.facts)
    assert dict(both.facts)["warning"].startswith("captioner and filter are the same checkpoint, ")
    assert not both.problems
