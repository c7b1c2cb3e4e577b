"""Checkpoints of VQA and NLVR2 models: folders of their own, and the original's files."""

import json

import pytest
import torch
from models import small_checkpoint
from safetensors.torch import load_file
from tasks import HEADS, read_reference, small_nlvr2, small_vqa

from capfilt.errors import CheckpointError
from capfilt.med.checkpoints import load, load_any, load_nlvr2, load_vqa, save

MAKE = {"med": small_checkpoint, "vqa": small_vqa, "nlvr2": small_nlvr2}
LOAD = {"med": load, "vqa": load_vqa, "nlvr2": load_nlvr2}


@pytest.mark.parametrize("kind", MAKE)
def test_a_saved_folder_loads_back_to_the_same_bits(tmp_path, kind):
    checkpoint = MAKE[kind](tmp_path / "vocabulary")
    save(checkpoint, tmp_path / "saved")

    found = LOAD[kind](tmp_path / "saved")

    assert json.loads((tmp_path / "saved" / "config.json").read_text())["model_type"] == kind
    assert type(found) is type(checkpoint)
    assert found.model.config == checkpoint.model.config
    assert found.tokenizer.vocabulary == checkpoint.tokenizer.vocabulary
    expected = checkpoint.model.state_dict()
    assert found.model.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.model.state_dict().items())


@pytest.mark.parametrize("kind", MAKE)
def test_another_kind_than_asked_for_is_refused(tmp_path, kind):
    save(MAKE[kind](tmp_path / "vocabulary"), tmp_path / "saved")
    names = {"med": "a captioning, retrieval or pre-training model", "vqa": "a VQA model", "nlvr2": "an NLVR2 model"}
    for other in MAKE.keys() - {kind}:
        with pytest.raises(CheckpointError, match=f"saved: holds {names[kind]}; {names[other]} is asked for"):
            LOAD[other](tmp_path / "saved")


@pytest.mark.parametrize("kind", ["vqa", "nlvr2"])
def test_positions_are_interpolated_to_another_image_size(tmp_path, kind):
    save(MAKE[kind](tmp_path / "vocabulary"), tmp_path / "saved")
    model = LOAD[kind](tmp_path / "saved", image_size=64).model
    assert model.vision.vit.pos_embed.shape == (1, 65, 32)


@pytest.fixture
def published(shared, tmp_path):
    """Return a function that writes an original file, with some tensors changed, and gives its state."""

    def write(kind: str, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
        state = load_file(shared / "fixtures" / "a" / f"{kind.removesuffix('2')}_state.safetensors")
        state = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
        torch.save({"model": state}, tmp_path / "model.pth")
        (tmp_path / "vocab.txt").write_text("\n".join(read_reference(shared).tokenizer.vocabulary) + "\n")
        return state

    return write


@pytest.mark.parametrize(
    ("kind", "theirs", "ours"),
    [
        (
            "vqa",
            "text_encoder.encoder.layer.1.crossattention.self.key.weight",
            "questions.blocks.1.cross_attn.key.weight",
        ),
        (
            "vqa",
            "text_decoder.bert.encoder.layer.0.attention.output.dense.bias",
            "answers.blocks.0.decoder_attn.out.bias",
        ),
        ("vqa", "text_decoder.bert.embeddings.word_embeddings.weight", "answers.embeddings.words.weight"),
        ("vqa", "text_decoder.cls.predictions.bias", "answers.head.bias"),
        (
            "nlvr2",
            "text_encoder.encoder.layer.2.crossattention.self1.value.bias",
            "text.blocks.2.cross_attn.sides.1.value.bias",
        ),
        (
            "nlvr2",
            "text_encoder.encoder.layer.3.crossattention.output.dense0.weight",
            "text.blocks.3.cross_attn.sides.0.out.weight",
        ),
        (
            "nlvr2",
            "text_encoder.encoder.layer.7.crossattention.output.merge_layer.weight",
            "text.blocks.7.cross_attn.merge.weight",
        ),
        (
            "nlvr2",
            "text_encoder.encoder.layer.0.crossattention.output.LayerNorm.weight",
            "text.blocks.0.cross_attn.norm.weight",
        ),
        ("nlvr2", "cls_head.2.weight", "head.2.weight"),
    ],
)
def test_an_original_file_loads_by_its_names(published, tmp_path, kind, theirs, ours):
    state = published(kind)
    found = load_any(tmp_path / "model.pth", heads=HEADS)
    assert type(found).__name__.lower() == f"{kind}checkpoint"
    assert torch.equal(found.model.state_dict()[ours], state[theirs].float())


def test_a_name_that_has_no_place_is_an_error(published, tmp_path):
    published("nlvr2", **{"cls_head.4.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"tensors without a place in NLVR2: 1 \(first: cls_head\.4\.weight\)"):
        load_any(tmp_path / "model.pth", heads=HEADS)


def test_a_missing_tensor_is_told_by_our_name(published, tmp_path):
    published("vqa", **{"text_decoder.bert.encoder.layer.0.crossattention.self.query.bias": None})
    with pytest.raises(
        CheckpointError, match=r"tensors that do not fit: 1 \(answers\.blocks\.0\.cross_attn\.query\.bias is missing\)"
    ):
        load_any(tmp_path / "model.pth", heads=HEADS)
