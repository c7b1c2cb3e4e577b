import json
import re
from pathlib import Path

import pytest
import torch
from annotated import config, png, write_lines, write_set
from click.testing import CliRunner, Result
from dry_runs import dry_run
from models import lively_checkpoint
from tasks import small_nlvr2, small_vqa, write_json

from capfilt.cli import cli
from capfilt.config import dump
from capfilt.config.evaluation import EvaluationData
from capfilt.errors import CheckpointError, ConfigError
from capfilt.med.checkpoints import NLVR2Checkpoint, VQACheckpoint, save
from pipelines import evaluate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small annotated set with a model that holds both roles."""
    write_set(tmp_path)
    save(lively_checkpoint(tmp_path / "words"), tmp_path / "model")
    return tmp_path


def written(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def capfilt(folder: Path, settings: str, *overrides: str) -> Result:
    (folder / "job.yaml").write_text(settings)
    arguments = [argument for override in overrides for argument in ("--set", override)]
    return CliRunner().invoke(cli, ["evaluate", str(folder / "job.yaml"), *arguments])


def test_a_task_is_measured_and_its_result_written_and_returned(folder, monkeypatch):
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", True)
    result = evaluate.run(config(folder))
    assert not torch.backends.cudnn.allow_tf32  # a GPU measures float32 as it is
    assert written(folder) == json.loads(json.dumps(result))
    assert result["task"] == "retrieval"
    assert result["figures"]["itm"]["to_text"]["r10"] == 100.0


@pytest.mark.parametrize("output", ["", "later/"])
def test_a_folder_for_the_result_is_refused_before_anything_is_measured(folder, output):
    job = config(folder).model_copy(update={"output": f"{folder}/{output}", "checkpoint": "none"})
    told = f"output: {folder}/{output} is a folder; give a file in it, such as {folder}/{output}result.json"
    with pytest.raises(ConfigError, match=re.escape(told)):
        evaluate.run(job)
    assert told in str(evaluate.dry_run(job).problems)


def test_repeating_the_config_of_a_result_gives_its_figures(folder):
    first = evaluate.run(config(folder))
    again = evaluate.run(type(config(folder)).model_validate(first["config"]))
    assert again["figures"] == first["figures"]


def test_captions_are_written_beside_their_figures(folder, monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="the extra evaluation is not installed")
    monkeypatch.setattr("shutil.which", lambda name: None)
    evaluate.run(config(folder, "captioning"))
    assert [caption["image"] for caption in written(folder)["written"]] == [f"{i}.png" for i in range(4)]
    assert written(folder)["figures"]["tokenizer"] == "simple"


def test_clips_are_retrieved_by_their_frames(folder):
    for clip in ("a", "b"):
        (folder / clip).mkdir()
        for number in range(3):
            (folder / clip / f"{number}.png").write_bytes(png("red" if clip == "a" else "blue", shade=number))
    lines = [{"clip_name": "a", "caption": "a red dog"}, {"clip_name": "b", "caption": "a blue cat"}]
    data = EvaluationData(annotations=str(write_lines(folder / "clips.jsonl", lines)), images=str(folder))
    figures = evaluate.run(config(folder, "video", data=data, video={"frames": 2}))["figures"]
    assert (figures["clips"], figures["texts"]) == (2, 2)
    assert figures["itm"]["to_image"]["r5"] == 100.0


def test_the_filter_is_held_against_people(folder):
    lines = [{"image": f"{i}.png", "caption": "a dog", "yes_share": i / 3, "kind": "crowd"} for i in range(4)]
    data = EvaluationData(annotations=str(write_lines(folder / "judgments.jsonl", lines)), images=str(folder))
    figures = evaluate.run(config(folder, "judgments", data=data, verdicts={"resamples": 20}))["figures"]
    assert (figures["crowd"]["pairs"], figures["crowd"]["matches"]) == (4, 2)


def test_own_captions_are_held_against_texts_of_a_file_which_is_named(folder):
    web = write_lines(folder / "web.jsonl", [{"text": f"cat {letter}"} for letter in "bcd"])
    verdicts = {"foreign": str(web), "foreign_per_image": 2, "resamples": 20}
    result = evaluate.run(config(folder, "foreign_texts", verdicts=verdicts))
    assert result["figures"]["own_against_foreign"]["pairs"] == 8 + 4 * 2
    assert [file["path"] for file in result["files"]] == [str(folder / "captions.jsonl"), str(web)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_questions_are_answered_and_their_answers_written(folder, dtype):
    save(VQACheckpoint(*small_vqa(folder / "words")), folder / "model")
    entries = [{"question_id": 7, "question": "a dog", "image": "0.png", "answer": ["cat"] * 10}]
    questions = {"files": [{"questions": write_json(folder / "q.json", entries), "images": f"{folder}/{{image}}"}]}
    vqa = {"candidates": write_json(folder / "answers.json", ["cat"])}
    device = {"dtype": dtype}
    result = evaluate.run(config(folder, "vqa", data=None, questions=questions, vqa=vqa, device=device))
    assert result["figures"] == {"questions": 1, "accuracy": 100.0, "accuracy_by_type": {}}
    assert result["written"] == [{"question_id": 7, "answer": "cat"}]
    assert [Path(str(file["path"])).name for file in result["files"]] == ["q.json", "answers.json"]


def test_a_file_that_is_not_read_need_not_be_there_and_is_not_named(folder):
    """The result is made up behind the last image: a file that is missed only there loses all that was measured."""
    lines = [{"image": f"{i}.png", "caption": "a dog", "yes_share": i / 3, "kind": "crowd"} for i in range(4)]
    data = EvaluationData(annotations=str(write_lines(folder / "judgments.jsonl", lines)), images=str(folder))
    verdicts = {"resamples": 20, "foreign": "none.jsonl"}
    judged = evaluate.run(config(folder, "judgments", data=data, verdicts=verdicts))
    assert [file["path"] for file in judged["files"]] == [data.annotations]
    asked = sections(folder, "vqa") | {"vqa": {"method": "generate", "candidates": "none.json"}}
    answered = evaluate.run(config(folder, "vqa", **asked))
    assert [Path(str(file["path"])).name for file in answered["files"]] == ["q.json"]


def test_sentences_about_two_images_are_judged(folder):
    save(NLVR2Checkpoint(*small_nlvr2(folder / "words")), folder / "model")
    entries = [{"sentence": "two dogs", "label": label, "images": ["0.png", "1.png"]} for label in ("True", "False")]
    file = {"annotations": write_json(folder / "dev.json", entries), "images": f"{folder}/{{image}}"}
    sentences = {"files": [file], "swap": False, "max_tokens": 40}
    result = evaluate.run(config(folder, "nlvr2", data=None, sentences=sentences))
    assert result["figures"] == {"sentences": 2, "accuracy": 50.0}  # the same sentence is both true and false


def test_texts_longer_than_the_model_takes_are_refused_before_any_is_read(folder):
    save(VQACheckpoint(*small_vqa(folder / "words")), folder / "vqa")
    save(NLVR2Checkpoint(*small_nlvr2(folder / "words")), folder / "nlvr2")
    asked = {"files": [{"questions": "none.json", "images": "x"}], "max_tokens": 41}
    stated = {"files": [{"annotations": "none.json", "images": "x"}], "max_tokens": 41}
    for task, data in (("vqa", {"questions": asked, "vqa": {"method": "generate"}}), ("nlvr2", {"sentences": stated})):
        with pytest.raises(ConfigError, match=r"\.max_tokens: 41, the model takes 40; lower it") as told:
            evaluate.run(config(folder, task, data=None, checkpoint=str(folder / task), **data))
        assert str(told.value).partition(".")[0] in data


def test_answers_longer_than_the_model_takes_are_refused_before_a_question_is_read(folder):
    save(VQACheckpoint(*small_vqa(folder / "words")), folder / "vqa")
    asked = {"files": [{"questions": "none.json", "images": "x"}]}
    written = {"method": "generate", "max_length": 41}
    with pytest.raises(ConfigError, match=r"vqa\.max_length: 41, the model takes 40; lower it"):
        evaluate.run(config(folder, "vqa", data=None, checkpoint=str(folder / "vqa"), questions=asked, vqa=written))


def test_a_checkpoint_of_another_task_is_refused(folder):
    sentences = {"files": [{"annotations": "none.json", "images": "x"}]}
    with pytest.raises(CheckpointError, match=str(folder / "model")):
        evaluate.run(config(folder, "nlvr2", data=None, sentences=sentences))


def test_the_command_prints_the_figures(folder):
    result = capfilt(folder, dump(config(folder)), "retrieval.top_k=2")
    assert result.exit_code == 0, result.output
    assert '"itc_alone"' in result.output
    assert written(folder)["config"]["retrieval"]["top_k"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.annotations={folder}/none.json", "none.json: is not there; set its key to the annotation file"),
        ("data.images={folder}/words", "0.png is not there; set data.images to the folder that the names"),
        ("checkpoint={folder}/captioner", "no encoder and no ITM head; it can serve as captioner, not as filter"),
        ("checkpoint={folder}/none", "no checkpoint at"),
        ("device.kind=cuda", "torch sees no GPU here; set device.kind: cpu"),
        ("scoring.max_tokens=99", "scoring.max_tokens: 99, the model takes 40; lower it"),
        ("task=retrival", "task: input should be 'retrieval'"),
    ],
)
def test_what_a_user_can_mend_is_told_in_one_line(folder, monkeypatch, change, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    save(lively_checkpoint(folder / "words", encoder=False), folder / "captioner")
    result = capfilt(folder, dump(config(folder)), change.format(folder=folder))
    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1
    assert not (folder / "result.json").exists()


def sections(folder: Path, task: str) -> dict[str, object]:
    """Return what a task needs beside the small set, with its files."""
    if task == "vqa":
        save(VQACheckpoint(*small_vqa(folder / "words")), folder / "model")
        entries = [{"question": "a dog", "question_id": 1, "image": "0.png", "answer": ["cat"]}]
        file = {"questions": write_json(folder / "q.json", entries), "images": f"{folder}/{{image}}"}
        candidates = write_json(folder / "answers.json", ["cat", "dog"])
        return {"data": None, "questions": {"files": [file]}, "vqa": {"candidates": candidates}}
    if task == "nlvr2":
        save(NLVR2Checkpoint(*small_nlvr2(folder / "words")), folder / "model")
        entries = [{"sentence": "two dogs", "label": "True", "images": ["0.png", "1.png"]}]
        file = {"annotations": write_json(folder / "dev.json", entries), "images": f"{folder}/{{image}}"}
        return {"data": None, "sentences": {"files": [file], "max_tokens": 40}}
    return {}


@pytest.mark.parametrize("task", ["retrieval", "captioning", "vqa", "nlvr2"])
def test_a_dry_run_looks_at_the_data_and_the_model_and_writes_nothing(folder, task):
    (folder / "job.yaml").write_text(dump(config(folder, task, **sections(folder, task))))
    told = dry_run(folder, "evaluate", folder / "job.yaml")
    assert told.exit_code == 0, told.output
    assert "the first image was read" in told.output
    for name in ("0.png", "answers.json"):
        (folder / name).unlink(missing_ok=True)
    told = dry_run(folder, "evaluate", folder / "job.yaml")
    assert told.exit_code == 1
    assert ("answers.json" if task == "vqa" else "0.png") in told.output
    assert not (folder / "result.json").exists()


def test_a_dry_run_tells_what_keeps_a_model_from_its_task(folder):
    save(lively_checkpoint(folder / "words", encoder=False), folder / "model")
    (folder / "job.yaml").write_text(dump(config(folder)))
    told = dry_run(folder, "evaluate", folder / "job.yaml")
    assert told.exit_code == 1
    assert "no encoder and no ITM head; it can serve as captioner, not as filter" in told.output
