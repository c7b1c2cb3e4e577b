"""Fine-tuning for VQA and NLVR2 from a pre-trained MED, by the command that users call."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from models import small_checkpoint
from tasks import write_images, write_json

from capfilt.cli import cli
from capfilt.med.checkpoints import load_nlvr2, load_vqa, save

SHORT = {"batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A pre-training checkpoint, two pictures, and questions and sentences about them."""
    save(small_checkpoint(tmp_path / "vocabulary"), tmp_path / "start")
    write_images(tmp_path, "0.png", "1.png")
    questions = [
        {"question_id": n, "question": "a dog", "answer": [word] * 10, "image": f"{n % 2}.png"}
        for n, word in enumerate(["cat", "dog", "cat", "dog"])
    ]
    sentences = [
        {"sentence": f"the {side} dog", "label": label, "images": ["0.png", "1.png"]}
        for side, label in (("left", "True"), ("right", "False"))
    ]
    write_json(tmp_path / "questions.json", questions)
    write_json(tmp_path / "sentences.json", sentences)
    return tmp_path


def finetune(
    folder: Path,
    role: str,
    steps: int,
    schedule: dict[str, object] | None = None,
    merge_from: int = 1,
    **data: object,
) -> Result:
    """Run the command."""
    config = {
        "role": role,
        "checkpoint": str(folder / "start"),
        "output": str(folder / role),
        "data": data,
        "schedule": {**SHORT, "steps": steps, **(schedule or {})},
        "device": {"kind": "cpu", "threads": 1},
        "tracking": {"every": 1, "tensorboard": False},
        "drop_path": 0.0,
    }
    if role == "nlvr2":
        config["merge_from"] = merge_from
    path = folder / f"{role}.yaml"
    path.write_text(yaml.safe_dump(config))
    return CliRunner().invoke(cli, ["finetune", str(path)])


def losses(folder: Path, name: str) -> list[float]:
    return [json.loads(line)[name] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_vqa_model_learns_its_answers(folder):
    file = {"questions": str(folder / "questions.json"), "images": f"{folder}/{{image}}"}
    result = finetune(folder, "vqa", 30, files=[file])
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith(f"checkpoint: {folder}/vqa/checkpoint")
    assert load_vqa(folder / "vqa" / "checkpoint").model.config.vision.drop_path == 0.0
    seen = losses(folder / "vqa", "answers")
    assert seen[-1] < seen[0] / 2


def test_an_nlvr2_model_learns_its_sentences(folder):
    file = {"annotations": str(folder / "sentences.json"), "images": f"{folder}/{{image}}"}
    result = finetune(folder, "nlvr2", 30, files=[file], max_tokens=40)
    assert result.exit_code == 0, result.output
    assert load_nlvr2(folder / "nlvr2" / "checkpoint").model.config.merge_from == 1
    seen = losses(folder / "nlvr2", "nlvr2")
    assert len(seen) == 30
    assert seen[-1] < seen[0]


def test_an_nlvr2_model_that_is_too_shallow_to_merge_where_it_is_told_to_is_refused(folder):
    file = {"annotations": str(folder / "sentences.json"), "images": f"{folder}/{{image}}"}
    result = finetune(folder, "nlvr2", 1, merge_from=6, files=[file], max_tokens=40)
    assert result.exit_code == 1
    message = "merge_from: 6, but the text stack has 2 blocks; set merge_from: 1, or 2 to take the mean in every block"
    assert result.output.splitlines()[-1] == f"Error: {message}"
    assert finetune(folder, "nlvr2", 1, merge_from=2, files=[file], max_tokens=40).exit_code == 0


@pytest.mark.parametrize(("role", "key"), [("vqa", "questions"), ("nlvr2", "annotations")])
def test_texts_longer_than_the_model_takes_are_refused_before_any_is_read(folder, role, key):
    result = finetune(folder, role, 1, files=[{key: "none.json", "images": "x"}], max_tokens=41)
    assert result.exit_code == 1
    assert result.output.endswith("data.max_tokens: 41, the model takes 40; lower it\n")
    assert result.output.splitlines()[-1].startswith("Error: ")  # one line, after what was said of the weights


@pytest.mark.parametrize(
    ("role", "key", "message"),
    [
        ("vqa", "questions", "a VQA model starts from encoder and decoder; give a pre-training checkpoint"),
        ("nlvr2", "annotations", "an NLVR2 model starts from an encoder; give a pre-training or retrieval checkpoint"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_named(folder, role, key, message):
    save(small_checkpoint(folder / "vocabulary", encoder=False), folder / "start")
    result = finetune(folder, role, 1, files=[{key: "none.json", "images": "x"}])
    assert result.output.splitlines()[-1] == f"Error: {folder}/start: {message}"


def test_texts_of_an_image_are_not_counted_where_entries_are_trained_on(folder):
    file = {"questions": "none.json", "images": "x"}
    result = finetune(folder, "vqa", 1, schedule={"texts_per_image": 3}, files=[file])
    assert result.exit_code == 1
    assert "schedule.texts_per_image: 3 is read where captions are drawn; leave it out" in result.output


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "role: is missing; give 'captioner', 'filter', 'vqa' or 'nlvr2'"),
        ({"role": "painter"}, r"role: input should be 'captioner', 'filter', 'vqa' or 'nlvr2' (found 'painter')"),
        ({"role": ["vqa"]}, r"role: input should be 'captioner', 'filter', 'vqa' or 'nlvr2' (found ['vqa'])"),
        ({"role": "vqa", "prompt": "a"}, r"prompt: unknown key"),
    ],
)
def test_the_role_tells_which_keys_belong(tmp_path, values, message):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(cli, ["finetune", str(path)])
    assert result.exit_code == 1
    assert message in result.output
