"""Checkpoints go from every layout that is read into every layout that is written, and mistakes say what to do."""

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from models import small_checkpoint, write_vocabulary
from safetensors.torch import load_file

from capfilt.cli import cli
from capfilt.cli.checkpoint import LAYOUTS
from capfilt.config.momentum import MomentumSettings
from capfilt.errors import CheckpointError
from capfilt.med import transformers_layout
from capfilt.med.checkpoints import Checkpoint, checkpoint_hash, load, load_any, save
from capfilt.med.momentum import MOMENTUM, Momentum, save_momentum
from capfilt.med.vision import resize_positions

CAPTIONING, RETRIEVAL = "transformers-captioning", "transformers-retrieval"


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["checkpoint", "convert", *map(str, arguments)])


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return small_checkpoint(tmp_path)


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    save(checkpoint, tmp_path / "med")
    return tmp_path / "med"


@pytest.fixture
def original(shared, tmp_path):
    """Return a function that writes an original's .pth file, with its vocabulary beside it."""

    def write(name: str) -> Path:
        state = load_file(shared / "fixtures" / "a" / f"{name}_state.safetensors")
        torch.save({"model": state, "epoch": 3}, tmp_path / "model.pth")
        (tmp_path / "vocab.txt").write_bytes((shared / "fixtures" / "a" / "vocab.txt").read_bytes())
        return tmp_path / "model.pth"

    return write


def test_the_choice_of_layouts_is_what_is_written():
    assert ("med", *transformers_layout.LAYOUTS) == LAYOUTS


@pytest.mark.parametrize("layout", [CAPTIONING, RETRIEVAL])
def test_there_and_back_gives_the_same_weights(checkpoint, folder, tmp_path, layout):
    there = convert(folder, tmp_path / "hf", "--to", layout)
    back = convert(tmp_path / "hf", tmp_path / "back")

    role = "captioner" if layout == CAPTIONING else "filter"
    told = "32 pixels, 2 heads in the vision tower and 2 in the text stack"
    assert there.output == f"{tmp_path / 'hf'}: {role} as {layout}, {told}\n"
    assert back.output == f"{tmp_path / 'back'}: {role} as med, {told}\n"
    state = checkpoint.model.state_dict()
    found = load(tmp_path / "back").model.state_dict()
    assert len(found) > 80
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


def test_a_single_head_is_told_as_one(original, tmp_path):
    assert "1 head in the vision tower" in convert(original("pretrain"), tmp_path / "o", "--vision-heads", 1).output


@pytest.mark.parametrize(
    ("name", "text_heads", "roles"),
    [("pretrain", 4, "captioner and filter"), ("vqa", 4, "VQA model"), ("nlvr", 4, "NLVR2 model")],
)
def test_an_original_file_becomes_a_folder(original, tmp_path, name, text_heads, roles):
    path = original(name)

    result = convert(path, tmp_path / "ours", "--vision-heads", 4, "--text-heads", text_heads)

    assert result.exit_code == 0, result.output
    assert f"{roles} as med, 64 pixels, 4 heads" in result.output
    before, after = load_any(path, heads=(4, text_heads)), load_any(tmp_path / "ours")
    assert after.model.config == before.model.config
    state = before.model.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in after.model.state_dict().items())


def test_an_original_file_becomes_a_transformers_folder_that_scores_as_the_original(original, shared, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the extra test has it")
    reference = load_file(shared / "fixtures" / "a" / "tensors.safetensors")
    result = convert(original("pretrain"), tmp_path / "hf", "--to", RETRIEVAL, "--vision-heads", 4, "--text-heads", 4)
    assert result.exit_code == 0, result.output
    model = transformers.BlipForImageTextRetrieval.from_pretrained(tmp_path / "hf").eval()
    ids, mask = reference["in.input_ids"].clone(), reference["in.attention_mask"]
    pixels = reference["in.pixel_values"].float()
    with torch.inference_mode():
        cosine = model(input_ids=ids, pixel_values=pixels, attention_mask=mask, use_itm_head=False).itm_score
        ids[:, 0] = load(tmp_path / "hf").tokenizer.enc
        first = model(input_ids=ids[:4], pixel_values=pixels, attention_mask=mask[:4]).itm_score
    torch.testing.assert_close(cosine, reference["out.itc_sim"], rtol=0, atol=1e-5)
    expected = torch.stack([reference["out.itm_logits_enc"][i, i] for i in range(4)])
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-4)


def test_momentum_copies_that_are_left_behind_are_told(folder, original, tmp_path):
    left = "; its momentum copies and queues are not converted: to continue with them, tune a filter from the source\n"
    heads = ("--vision-heads", 4, "--text-heads", 4)
    assert convert(original("pretrain"), tmp_path / "ours", *heads).output.endswith(left)
    assert not convert(original("vqa"), tmp_path / "none", *heads).output.endswith(left)
    save_momentum(Momentum(load(folder).model, MomentumSettings(queue=4), seed=0), folder / MOMENTUM)
    assert convert(folder, tmp_path / "own").output.endswith(left)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_positions_are_interpolated_to_another_image_size(checkpoint, folder, tmp_path, layout):
    convert(folder, tmp_path / "large", "--to", layout, "--image-size", 48)

    model = load(tmp_path / "large").model

    assert model.config.vision.image_size == 48
    positions = resize_positions(checkpoint.model.vision.vit.pos_embed, 37)
    assert torch.equal(model.vision.vit.pos_embed, positions)


class TestMistakes:
    def refused(self, result: Result, *parts: str) -> None:
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert result.output.count("\n") == 1
        for part in parts:
            assert part in result.output

    def test_nothing_there(self, tmp_path):
        self.refused(convert(tmp_path / "gone", tmp_path / "out"), "no checkpoint at", "gone")

    def test_a_target_that_is_not_empty_stays_as_it_is(self, folder, tmp_path):
        before = checkpoint_hash(folder)
        self.refused(convert(folder, folder), f"{folder}: exists already; give a new or an empty folder")
        (tmp_path / "file").write_text("words")
        self.refused(convert(folder, tmp_path / "file"), "file: exists already")
        assert checkpoint_hash(folder) == before

    def test_a_target_on_an_object_store(self, folder, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.iterdir())
        self.refused(convert(folder, "s3://bucket/out"), "s3://bucket/out: is not a folder on this machine")
        assert sorted(tmp_path.iterdir()) == before

    def test_a_target_as_a_url_of_this_machine(self, folder, tmp_path):
        assert convert(folder, f"file://{tmp_path / 'out'}").exit_code == 0
        assert load(tmp_path / "out").model.config == load(folder).model.config

    def test_an_empty_target_is_taken(self, folder, tmp_path):
        (tmp_path / "empty").mkdir()
        assert convert(folder, tmp_path / "empty").exit_code == 0

    def test_a_role_that_is_not_there(self, tmp_path):
        save(small_checkpoint(tmp_path, decoder=False), tmp_path / "filter")
        result = convert(tmp_path / "filter", tmp_path / "out", "--to", CAPTIONING)
        self.refused(result, "filter: has no decoder; it can serve as filter, not as captioner")
        assert not (tmp_path / "out").exists()

    def test_another_kind_of_model(self, original, tmp_path):
        path = original("vqa")
        result = convert(path, tmp_path / "out", "--to", CAPTIONING, "--vision-heads", 4, "--text-heads", 4)
        self.refused(result, "holds a VQA model, which BlipForConditionalGeneration cannot be; --to med is possible")
        assert not (tmp_path / "out").exists()

    def test_heads_for_a_folder_that_tells_its_own(self, folder, tmp_path):
        result = convert(folder, tmp_path / "out", "--text-heads", 4)
        self.refused(result, "its config.json states the attention heads; leave them out")

    def test_heads_that_do_not_divide_the_width(self, original, tmp_path):
        result = convert(original("pretrain"), tmp_path / "out", "--vision-heads", 5, "--text-heads", 4)
        self.refused(result, "model.pth: width 64 cannot be split into 5 heads; give sizes that fit its tensors")

    def test_an_image_that_is_no_whole_number_of_patches(self, folder, tmp_path):
        result = convert(folder, tmp_path / "out", "--image-size", 35)
        self.refused(result, "med: image_size 35 is not a multiple of patch_size 8; give another image size")

    def test_a_vocabulary_that_is_not_there(self, original, tmp_path):
        path = original("pretrain")
        path.with_name("vocab.txt").unlink()
        result = convert(path, tmp_path / "out", "--vision-heads", 4, "--text-heads", 4)
        self.refused(result, "no vocabulary at", "put bert-base-uncased's vocab.txt there")

    def test_a_layout_that_is_unknown(self, folder, tmp_path):
        assert convert(folder, tmp_path / "out", "--to", "onnx").exit_code == 2


class TestShow:
    def test_it_tells_roles_sizes_and_hash(self, checkpoint, folder):
        result = CliRunner().invoke(cli, ["checkpoint", "show", str(folder), "--json"])
        values = json.loads(result.output)
        assert values["roles"] == ["captioner", "filter"]
        assert values["hash"] == checkpoint_hash(folder)
        assert values["parameters"] == sum(p.numel() for p in checkpoint.model.parameters())
        assert values["vision"]["image_size"] == 32
        assert values["projection"] == 16

    def test_it_reads_well(self, folder):
        lines = CliRunner().invoke(cli, ["checkpoint", "show", str(folder)]).output.splitlines()
        assert lines[:3] == [f"path: {folder}", f"hash: {checkpoint_hash(folder)}", "roles: captioner and filter"]
        assert "  image_size: 32" in lines

    def test_the_weights_alone_are_answered_with_their_folder(self, folder):
        result = CliRunner().invoke(cli, ["checkpoint", "show", str(folder / "model.safetensors")])
        told = f"holds a checkpoint's weights alone; give its folder, {folder}"
        assert (result.exit_code, result.output) == (1, f"Error: {folder}/model.safetensors: {told}\n")

    def test_the_folder_of_a_training_run_is_answered_with_its_checkpoint(self, folder, tmp_path):
        folder.rename(tmp_path / "checkpoint")
        told = f"{tmp_path}: is the folder of a training run; its checkpoint is {tmp_path / 'checkpoint'}"
        with pytest.raises(CheckpointError, match=re.escape(told)):
            load(tmp_path)
        with pytest.raises(CheckpointError, match=re.escape(told)):
            checkpoint_hash(tmp_path)

    def test_what_is_no_checkpoint_is_told_in_a_line(self, tmp_path):
        write_vocabulary(tmp_path)
        result = CliRunner().invoke(cli, ["checkpoint", "show", str(tmp_path)])
        assert (result.exit_code, result.output) == (
            1,
            f"Error: {tmp_path}: holds no config.json; it is not a checkpoint folder\n",
        )
