"""Dry runs of the training jobs: each makes its job as its workers do, without values and without a file."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from dry_runs import dry_run
from models import small_checkpoint
from pairs import sample, tiny_model, write_shard
from tasks import write_images, write_json

from capfilt.config.training import FinetuneConfig, PretrainConfig
from capfilt.errors import ConfigError
from capfilt.med.checkpoints import save
from capfilt.runs.lease import hold_lease
from capfilt.training.folder import TrainingRun
from pipelines import finetune, pretrain

SCHEDULE = {"steps": 6, "batch_size": 4, "warmup_steps": 0, "checkpoint_steps": 2}
CPU = {"kind": "cpu", "threads": 1}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A set of 24 pairs, a pre-training checkpoint, and questions and sentences on two pictures."""
    write_shard(tmp_path / "set", map(sample, range(24)))
    save(small_checkpoint(tmp_path / "words"), tmp_path / "start")
    write_images(tmp_path, "0.png", "1.png")
    entry = {"question": "a dog", "answer": ["cat"] * 10}
    write_json(tmp_path / "q.json", [{**entry, "question_id": n, "image": f"{n % 2}.png"} for n in range(4)])
    lines = [{"sentence": "two dogs", "label": "True", "images": ["0.png", "1.png"]}] * 4
    write_json(tmp_path / "s.json", lines)
    return tmp_path


def pretraining(folder: Path, **changes: object) -> dict[str, object]:
    values = {"output": f"{folder}/run", "model": tiny_model(folder).model_dump(), "schedule": SCHEDULE, "device": CPU}
    return {**values, "data": {"shards": [f"{folder}/set"], "in_memory": True}, **changes}


def finetuning(folder: Path, role: str, **changes: object) -> dict[str, object]:
    data: dict[str, object] = {
        "vqa": {"files": [{"questions": f"{folder}/q.json", "images": f"{folder}/{{image}}"}]},
        "nlvr2": {"files": [{"annotations": f"{folder}/s.json", "images": f"{folder}/{{image}}"}], "max_tokens": 40},
    }.get(role, {"shards": [f"{folder}/set"], "workers": 1})
    values = {"role": role, "checkpoint": f"{folder}/start", "output": f"{folder}/run", "schedule": SCHEDULE}
    shallow = {"merge_from": 1} if role == "nlvr2" else {}
    return {**values, **shallow, "data": data, "device": CPU, **changes}


def job(folder: Path, values: dict[str, object]) -> Path:
    (folder / "job.yaml").write_text(yaml.safe_dump(values))
    return folder / "job.yaml"


def test_workers_without_a_gpu_are_refused_before_ray_starts(folder):
    values = pretraining(folder, device={"kind": "cuda"}, cluster={"workers": 2})
    message = "cluster.gpus_per_worker: 0, which gives a worker no GPU for device.kind: cuda; set it to 1, or"
    assert f"problem: {message}" in dry_run(folder, "pretrain", job(folder, values)).output
    with pytest.raises(ConfigError, match=f"^{message}"):
        pretrain.run(PretrainConfig.model_validate(values))
    assert not (folder / "run").exists()


def test_a_package_that_tracking_lacks_is_a_problem(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    values = pretraining(folder, tracking={"wandb": "offline"})
    result = dry_run(folder, "pretrain", job(folder, values))
    assert result.exit_code == 1
    assert "problem: tracking.wandb: the package wandb is not installed; pip install 'capfilt[wandb]'" in result.output


def test_pre_training_is_told_with_its_parameters_steps_and_room(folder):
    values = pretraining(folder, momentum={"queue": 8})
    result = dry_run(folder, "pretrain", job(folder, values))
    assert result.exit_code == 0, result.output
    told = [line.strip() for line in result.output.splitlines()]
    model = pretrain.prepare(PretrainConfig.model_validate(values), None).objective
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert told[1:7] == [
        "device  cpu, in this process",
        "run     starts at step 0",
        f"model   {learned:,} parameters are learned",
        "data    24 samples, 6 steps of 4 an epoch",
        "does    6 steps, 1.0 epochs",
        told[6],
    ]
    assert told[6].startswith(f"writes  {folder}/run, up to ")
    assert told[7] == "data    the first sample was read"


@pytest.mark.parametrize("role", ["captioner", "filter", "vqa", "nlvr2"])
def test_every_role_is_made_without_a_file(folder, role):
    result = dry_run(folder, "finetune", job(folder, finetuning(folder, role)))
    assert result.exit_code == 0, result.output
    assert "the first sample was read" in result.output


def test_a_run_that_was_stopped_goes_on_and_one_that_is_done_is_done(folder):
    values = finetuning(folder, "captioner", data={"shards": [f"{folder}/set"]})
    finetune.run(FinetuneConfig.model_validate(values))
    assert f"is done: {folder}/run/checkpoint is there" in dry_run(folder, "finetune", job(folder, values)).output

    (folder / "run/checkpoint/config.json").unlink()
    (folder / "run/states").mkdir()
    (folder / "run/states/000000004.pt").write_bytes(b"")
    assert "goes on from the state of step 4" in dry_run(folder, "finetune", job(folder, values)).output

    other = dry_run(folder, "finetune", job(folder, {**values, "seed": 9}))
    assert other.exit_code == 1
    assert "config.yaml: holds 'seed: 0' where 'seed: 9' was given" in other.output


def test_another_driver_at_work_is_a_problem(folder):
    with hold_lease(f"{folder}/run"):
        result = dry_run(folder, "finetune", job(folder, finetuning(folder, "captioner")))
    assert result.exit_code == 1
    assert "problem: " in result.output
    assert "another driver is at work on this run" in result.output


def test_shards_that_were_a_slip_are_no_problem_for_those_that_mend_it(folder):
    slip = PretrainConfig.model_validate(pretraining(folder))
    run = TrainingRun(slip.output, slip)
    run.begin()
    pretrain.prepare(slip, run.shards)  # as when a job ends before its first step
    write_shard(folder / "right", map(sample, range(8)))
    mended = pretraining(folder, data={"shards": [f"{folder}/right"]})
    assert "data    8 samples" in dry_run(folder, "pretrain", job(folder, mended)).output
    assert pretrain.run(PretrainConfig.model_validate(mended)) == run.checkpoint


@pytest.mark.parametrize(
    ("role", "change", "problem"),
    [
        ("captioner", {"checkpoint": "{folder}/none"}, "no checkpoint at {folder}/none"),
        ("captioner", {"image_size": 30}, "{folder}/start: image_size"),
        ("captioner", {"data": {"shards": ["{folder}/set"], "max_tokens": 40}}, "data.max_tokens: 40, which with the"),
        ("filter", {"data": {"shards": ["{folder}/words"]}}, "data.shards: {folder}/words matches no shard"),
        ("filter", {"cluster": {"workers": 2, "address": "127.0.0.1:1"}}, "127.0.0.1:1 does not answer"),
        ("vqa", {"data": {"files": [{"questions": "{folder}/q.json", "images": "x/{{image}}"}]}}, "x/0.png"),
        ("nlvr2", {"data": {"files": [{"annotations": "{folder}/q.json", "images": "x"}]}}, "data.max_tokens: 64"),
        ("nlvr2", {"merge_from": 6}, "merge_from: 6, but the text stack has 2 blocks"),
    ],
)
def test_what_would_stop_the_job_is_told_in_one_line(folder, role, change, problem):
    values = yaml.safe_load(yaml.safe_dump(change).replace("{folder}", str(folder)).replace("{{image}}", "{image}"))
    result = dry_run(folder, "finetune", job(folder, finetuning(folder, role) | values))
    assert result.exit_code == 1
    problems = [line for line in result.output.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 1
    assert problem.replace("{folder}", str(folder)) in problems[0]


def test_the_weights_of_a_vit_and_a_bert_are_looked_at_by_their_headers(folder):
    torch.save({"patch_embed.proj.weight": torch.zeros(48, 3, 16, 16)}, folder / "vit.pth")
    values = pretraining(folder, initial={"vision": f"{folder}/vit.pth"})
    result = dry_run(folder, "pretrain", job(folder, values))
    assert result.exit_code == 1
    assert "vit.pth: is a ViT of other sizes; set model.patch_size: 16, model.vision_width: 48" in result.output
