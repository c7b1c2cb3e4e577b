"""Checkpoints come back to the same bits, and what is none is refused with what to do."""

import json
import os
from pathlib import Path

import pytest
import torch
from models import lively_checkpoint, write_vocabulary
from safetensors.torch import load_file, save_file

from capfilt.errors import CheckpointError
from capfilt.med.checkpoints import Checkpoint, checkpoint_hash, load, require, save
from capfilt.med.published import POSITIONS
from capfilt.med.transformers_layout import save_transformers
from capfilt.med.vision import resize_positions
from capfilt.storage import publish

ROLES = {"both": (True, True), "filter": (True, False), "captioner": (False, True)}


@pytest.fixture
def checkpoint(tmp_path) -> Checkpoint:
    return lively_checkpoint(tmp_path)


@pytest.fixture
def folder(checkpoint, tmp_path) -> Path:
    save(checkpoint, tmp_path / "med")
    return tmp_path / "med"


@pytest.mark.parametrize("roles", ROLES.values(), ids=ROLES)
def test_a_saved_checkpoint_comes_back_to_the_same_bits(tmp_path, roles):
    before = lively_checkpoint(tmp_path, 0, *roles)
    save(before, tmp_path / "med")

    after = load(tmp_path / "med")

    assert after.model.config == before.model.config
    assert after.tokenizer.vocabulary == before.tokenizer.vocabulary
    expected, found = before.model.state_dict(), after.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert not after.model.training


def test_saving_twice_gives_the_same_bytes(checkpoint, folder, tmp_path):
    save(load(folder), tmp_path / "again")
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_a_checkpoint_half_written_over_another_is_none(checkpoint, folder, monkeypatch):
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("capfilt.med.checkpoints.save_file", die)
    with pytest.raises(KeyboardInterrupt):
        save(checkpoint, folder)

    with pytest.raises(CheckpointError, match=r"holds no config\.json; it is not a checkpoint folder"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_read_as_float32(folder, dtype):
    weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")

    for image_size in (None, 64):
        state = load(folder, image_size).model.state_dict()
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
        assert torch.equal(state["itm_head.weight"], weights["itm_head.weight"].float())
        positions = weights["vision.vit.pos_embed"].float()
        expected = resize_positions(positions, 65) if image_size else positions
        assert torch.equal(state["vision.vit.pos_embed"], expected)


@torch.inference_mode()
def test_a_checkpoint_reads_larger_images_when_asked(folder):
    model = load(folder, image_size=64).model
    assert model.encode_image(torch.zeros(1, 3, 64, 64)).shape == (1, 65, 32)


@pytest.mark.parametrize("side", [64_000, 32 * 10**20])
def test_an_image_size_of_more_patches_than_memory_holds_is_refused(folder, side):
    with pytest.raises(CheckpointError, match=r"/med: .*image_size.* 65,536 are the most; give another image size$"):
        load(folder, image_size=side)


class TestWhatIsNone:
    def test_nothing_there(self, tmp_path):
        for read in (load, checkpoint_hash):
            with pytest.raises(CheckpointError, match=r"no checkpoint at .*gone; capfilt finetune writes one"):
                read(tmp_path / "gone")

    def test_a_folder_without_config(self, tmp_path):
        with pytest.raises(CheckpointError, match=r"holds no config\.json; it is not a checkpoint folder"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", r"config\.json: is not JSON"),
            ("\udcff", r"config\.json: is not JSON"),
            ("[1]", r"config\.json: is not a JSON object"),
            ('{"model_type": "llama"}', "config.json is of model type llama; med or blip is read"),
            ('{"model_type": "med", "depth": 3}', r"config\.json: depth: .*; it is not this release's layout"),
            (
                '{"model_type": "med", "text": {"width": 30, "heads": 4}}',
                r"config\.json: text: .*width 30 cannot be split into 4 heads",
            ),
        ],
    )
    def test_a_config_of_something_else(self, folder, text, message):
        (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(CheckpointError, match=message):
            load(folder)

    def test_weights_that_are_missing(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"model\.safetensors: is not there; copy the checkpoint's weights"):
            load(folder)
        with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
            checkpoint_hash(folder)

    @pytest.mark.parametrize("left", [0, 5, 500, -1])
    def test_weights_that_are_cut_short(self, folder, left):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:left])
        with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read as tensors \(.+\); fetch it"):
            load(folder)

    def test_a_vocabulary_of_another_size(self, folder):
        publish(str(folder / "vocab.txt"), (folder / "vocab.txt").read_bytes() + b"zebra\n")
        with pytest.raises(CheckpointError, match=r"vocab\.txt has 27 words with \[DEC\] and \[ENC\], the weights 26"):
            load(folder)

    def test_tensors_that_are_missing_left_over_and_of_other_shapes_are_all_named(self, folder):
        weights = load_file(folder / "model.safetensors")
        weights["extra"] = weights.pop("itm_head.bias")
        weights["text_proj.weight"] = weights["text_proj.weight"][:3].clone()
        save_file(weights, folder / "model.safetensors")
        listing = r"extra is left over; itm_head\.bias is missing; text_proj\.weight is \(3, 32\)"
        message = rf"tensors that do not fit: 3 \({listing}"
        with pytest.raises(CheckpointError, match=message):
            load(folder)

    @pytest.mark.parametrize(
        ("sizes", "message"),
        [
            (
                {"mlp_width": 2**50},
                r"tensors that do not fit: \d+ \(text\.blocks\.0\.mlp\.down\.weight is \(32, 64\), not",
            ),
            ({"width": 2**24, "heads": 1}, "tensors that do not fit"),
            ({"mlp_width": 2**62}, r"/med: its sizes are beyond any tensor; copy its config\.json again"),
            ({"positions": 2**70}, r"/med: its sizes are beyond any tensor; copy its config\.json again"),
            ({"depth": 10**12}, r"tensors, too few for 1000000000000 blocks"),
        ],
    )
    def test_sizes_that_no_memory_holds(self, folder, sizes, message):
        values = json.loads((folder / "config.json").read_text())
        values["text"] |= sizes
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match=message):
            load(folder)

    @pytest.mark.parametrize("image_size", [None, 64])
    @pytest.mark.parametrize("shape", [None, (), (17,), (17, 32), (1, 0, 32), (1, 1, 32), (1, 12, 32), (2, 17, 32)])
    def test_a_position_table_that_is_none(self, folder, tmp_path, shape, image_size):
        save_transformers(load(folder), tmp_path / "hf", "transformers-captioning", "med")
        names = {folder: POSITIONS, tmp_path / "hf": "vision_model.embeddings.position_embedding"}
        for path, name in names.items():
            weights = load_file(path / "model.safetensors")
            del weights[name]
            save_file(weights if shape is None else weights | {name: torch.zeros(shape)}, path / "model.safetensors")
            with pytest.raises(
                CheckpointError, match=r"tensors that do not fit: 1|do not give the sizes|greater than 0"
            ):
                load(path, image_size)


class TestPublishedFiles:
    @pytest.fixture
    def pth(self, tmp_path) -> Path:
        write_vocabulary(tmp_path)
        return tmp_path / "model.pth"

    def test_code_in_a_file_is_refused_and_does_not_run(self, pth):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(pth.with_name("proof")),)

        torch.save({"model": {"temp": Evil()}}, pth)

        with pytest.raises(CheckpointError, match=r"model\.pth: holds something other than tensors, which is never"):
            load(pth)
        assert not pth.with_name("proof").exists()

    @pytest.mark.parametrize(
        "content", [b"", b"<html>404</html>", b"PK\x03\x04 cut", b"\x80\x02}", b"\x00" * 99, b"half a st"]
    )
    def test_what_is_no_torch_file_is_refused(self, pth, content):
        pth.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model\.pth: (cannot be read as tensors|holds something other)"):
            load(pth)

    @pytest.mark.parametrize("cut", [0.3, 0.9])
    def test_a_file_that_is_cut_short_is_refused(self, pth, cut):
        torch.save({"model": {"temp": torch.zeros(5000)}}, pth)
        pth.write_bytes(pth.read_bytes()[: int(cut * pth.stat().st_size)])
        with pytest.raises(CheckpointError, match=r"model\.pth: (cannot be read as tensors|holds something other)"):
            load(pth)

    @pytest.mark.parametrize("state", [[torch.zeros(1)], {"model": 3}, {"epoch": 3, "temp": torch.zeros(1)}])
    def test_a_file_without_a_state_dict_is_refused(self, pth, state):
        torch.save(state, pth)
        with pytest.raises(CheckpointError, match=r"model\.pth: holds no state dict; a BLIP \.pth has one"):
            load(pth)

    @pytest.mark.parametrize(
        "state", [{}, {"temp": torch.zeros(())}, {"visual_encoder.patch_embed.proj.weight": torch.zeros(())}]
    )
    def test_a_state_dict_of_too_little_is_refused(self, pth, state):
        torch.save({"model": state}, pth)
        with pytest.raises(CheckpointError, match=r"model\.pth: its tensors do not give the sizes of a BLIP model"):
            load(pth)


@pytest.mark.parametrize(("kind", "role"), [("filter", "captioner"), ("captioner", "filter")])
def test_a_checkpoint_of_one_role_is_refused_for_the_other(tmp_path, kind, role):
    checkpoint = lively_checkpoint(tmp_path, 0, *ROLES[kind])
    assert require(checkpoint, kind, "m") is checkpoint
    with pytest.raises(CheckpointError, match=f"^m: has no .*; it can serve as {kind}, not as {role}$"):
        require(checkpoint, role, "m")


class TestHash:
    @pytest.mark.parametrize("name", ["model.safetensors", "vocab.txt", "config.json"])
    @pytest.mark.parametrize("place", [0, -2])
    def test_one_byte_of_any_file_changes_it(self, folder, name, place):
        before = checkpoint_hash(folder)
        content = bytearray((folder / name).read_bytes())
        content[place] ^= 1
        (folder / name).write_bytes(content)
        assert checkpoint_hash(folder) != before

    def test_the_path_and_files_that_are_not_read_do_not_change_it(self, folder, tmp_path):
        before = checkpoint_hash(folder)
        assert len(before) == 16
        (folder / "optimizer.bin").write_bytes(b"state")
        (folder / "README.md").write_bytes(b"words")
        assert checkpoint_hash(folder) == before
        folder.rename(tmp_path / "moved")
        assert checkpoint_hash(tmp_path / "moved") == before

    def test_it_covers_a_published_file_and_its_vocabulary(self, tmp_path):
        vocabulary, pth = write_vocabulary(tmp_path), tmp_path / "model.pth"
        pth.write_bytes(b"weights")
        before = checkpoint_hash(pth)
        pth.rename(tmp_path / "renamed.pth")
        assert checkpoint_hash(tmp_path / "renamed.pth") == before
        vocabulary.write_bytes(vocabulary.read_bytes() + b"zebra\n")
        assert checkpoint_hash(tmp_path / "renamed.pth") != before
        vocabulary.unlink()
        with pytest.raises(CheckpointError, match=rf"^{tmp_path}: holds no vocab\.txt; .*, beside renamed\.pth$"):
            checkpoint_hash(tmp_path / "renamed.pth")

    def test_it_covers_the_words_of_a_tokenizer(self, folder):
        (folder / "vocab.txt").rename(folder / "tokenizer.json")
        before = checkpoint_hash(folder)
        (folder / "tokenizer.json").write_bytes(b"others")
        assert checkpoint_hash(folder) != before


def test_config_json_tells_sizes_and_roles(folder):
    values = json.loads((folder / "config.json").read_text())
    assert values["model_type"] == "med"
    assert (values["encoder"], values["decoder"], values["text"]["vocabulary"]) == (True, True, 26)
