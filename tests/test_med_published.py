"""Published layouts load strictly by their names, and give what transformers gives with the same weights."""

import json

import pytest
import torch
from models import WORDS, write_vocabulary
from safetensors.torch import load_file, save_file

from capfilt.errors import CheckpointError
from capfilt.med.checkpoints import load, load_any
from capfilt.med.published import from_published, infer_config, translate
from capfilt.med.tokenizer import SPECIAL

transformers = pytest.importorskip("transformers")

VOCABULARY = len(SPECIAL) + len(WORDS) + 2
SIZES = {
    "text_config": {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "encoder_hidden_size": 32,
        "intermediate_size": 96,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
    },
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.2,
    },
    "projection_dim": 16,
    "image_text_hidden_size": 16,
}


@pytest.fixture
def folder(tmp_path, request):
    """A saved transformers model with random weights, and the model."""
    torch.manual_seed(0)
    kind = getattr(transformers, request.param)
    model = kind(transformers.BlipConfig(**SIZES)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    write_vocabulary(tmp_path)
    return tmp_path, model


@torch.inference_mode()
@pytest.mark.parametrize("folder", ["BlipForConditionalGeneration"], indirect=True)
def test_a_captioning_folder_gives_the_same_logits(folder):
    path, theirs = folder
    ours = load(path).model
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(5, 20, (2, 7))

    image = theirs.vision_model(pixels).last_hidden_state
    expected = theirs.text_decoder(ids, encoder_hidden_states=image).logits

    found = ours.decode(ids, ours.project_image(ours.encode_image(pixels)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert not ours.config.encoder


@torch.inference_mode()
@pytest.mark.parametrize("folder", ["BlipForImageTextRetrieval"], indirect=True)
def test_a_retrieval_folder_gives_the_same_scores(folder):
    path, theirs = folder
    ours = load(path).model
    pixels, ids = torch.randn(2, 3, 32, 32), torch.randint(5, 20, (2, 7))
    keep = torch.ones_like(ids, dtype=torch.bool)

    expected = theirs(input_ids=ids, pixel_values=pixels, attention_mask=keep.long())
    cosine = theirs(input_ids=ids, pixel_values=pixels, attention_mask=keep.long(), use_itm_head=False).itm_score

    image = ours.encode_image(pixels)
    torch.testing.assert_close(ours.match(ids, keep, ours.project_image(image)), expected.itm_score, rtol=0, atol=1e-4)
    features = ours.image_features(image) @ ours.text_features(ids, keep).T
    torch.testing.assert_close(features, cosine, rtol=0, atol=1e-5)
    assert not ours.config.decoder


@pytest.mark.parametrize("folder", ["BlipForQuestionAnswering"], indirect=True)
def test_another_blip_is_refused_with_the_first_tensor_that_does_not_fit(folder):
    with pytest.raises(CheckpointError, match=r"separate models|without a place|do not fit"):
        load(folder[0])


def test_a_name_that_no_row_knows_is_an_error():
    with pytest.raises(
        CheckpointError, match=r"m\.pth: tensors without a place in MED: 1 \(first: cls_head\.0\.weight\)"
    ):
        from_published({"cls_head.0.weight": torch.zeros(2, 2)}, "m.pth")


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("visual_encoder.blocks.3.attn.qkv.weight", "vision.vit.blocks.3.attn.qkv.weight"),
        ("text_encoder.encoder.layer.11.attention.self.key.bias", "text.blocks.11.encoder_attn.key.bias"),
        ("text_decoder.bert.encoder.layer.0.attention.output.dense.weight", "text.blocks.0.decoder_attn.out.weight"),
        (
            "text_decoder.bert.encoder.layer.0.crossattention.output.LayerNorm.bias",
            "text.blocks.0.cross_attn.norm.bias",
        ),
        ("text_encoder.encoder.layer.1.output.LayerNorm.weight", "text.blocks.1.mlp.norm.weight"),
        ("temp", "temperature"),
        ("text_encoder.encoder.layer.0.crossattention.self0.key.bias", "text.blocks.0.cross_attn.self0.key.bias"),
    ],
)
def test_names_are_translated(published, ours):
    assert translate(published) == ours


DECODER = "text_decoder.cls.predictions.decoder."
TIED = {
    f"{DECODER}weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    f"{DECODER}bias": "text_decoder.cls.predictions.bias",
}


@pytest.mark.parametrize("folder", ["BlipForConditionalGeneration"], indirect=True)
@pytest.mark.parametrize("second", TIED)
class TestTheSecondNamesOfTheLanguageHead:
    def test_weights_that_are_not_tied_are_refused(self, folder, second):
        path, _ = folder
        weights = load_file(path / "model.safetensors")
        weights[second] = weights[TIED[second]] + 0.1
        save_file(weights, path / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"differs from the tensor that it should share .* weights are tied$"):
            load(path)

    def test_one_name_is_enough(self, folder, second):
        path, _ = folder
        expected = load(path).model.state_dict()
        weights = load_file(path / "model.safetensors")
        weights[second] = weights.pop(TIED[second])
        save_file(weights, path / "model.safetensors")
        assert all(torch.equal(tensor, expected[name]) for name, tensor in load(path).model.state_dict().items())


@pytest.mark.parametrize("folder", ["BlipForImageTextRetrieval"], indirect=True)
class TestWhatNoTensorTells:
    """A model that computes something else with the same tensors would give other scores without a word."""

    def told(self, path, part: str, **changes) -> None:
        values = json.loads((path / "config.json").read_text())
        values[part] |= changes
        (path / "config.json").write_text(json.dumps(values))

    @pytest.mark.parametrize("part", ["vision_config", "text_config"])
    @pytest.mark.parametrize(("key", "value"), [("hidden_act", "relu"), ("layer_norm_eps", 0.1)])
    def test_another_activation_or_epsilon_is_refused(self, folder, part, key, value):
        self.told(folder[0], part, **{key: value})
        with pytest.raises(
            CheckpointError, match=rf"config\.json has {part}\.{key}: {value}, MED has (gelu|1e-06|1e-12);"
        ):
            load(folder[0])

    def test_the_librarys_own_epsilon_of_the_vision_tower_means_blips(self, folder):
        expected = load(folder[0]).model.state_dict()
        self.told(folder[0], "vision_config", layer_norm_eps=1e-5)
        assert load(folder[0]).model.state_dict().keys() == expected.keys()


class TestAttentionHeads:
    """No tensor of a .pth tells them."""

    def sizes(self, vision: int, text: int) -> dict[str, torch.Tensor]:
        return {
            "vision.vit.patch_embed.proj.weight": torch.zeros(vision, 3, 8, 8),
            "vision.vit.pos_embed": torch.zeros(1, 17, vision),
            "vision.vit.blocks.0.norm1.weight": torch.zeros(vision),
            "text.embeddings.words.weight": torch.zeros(26, text),
            "text.embeddings.positions.weight": torch.zeros(40, text),
            "text.blocks.0.mlp.up.weight": torch.zeros(64, text),
        }

    def test_those_of_published_widths_are_known(self, caplog):
        config = infer_config(self.sizes(1024, 768))
        assert (config.vision.heads, config.text.heads) == (16, 12)
        assert not caplog.messages

    def test_those_of_other_widths_are_assumed_and_told(self, caplog):
        config = infer_config(self.sizes(128, 192))
        assert (config.vision.heads, config.text.heads) == (2, 3)
        assert [message.rpartition("FOLDER ")[2] for message in caplog.messages] == [
            "--vision-heads N",
            "--text-heads N",
        ]

    @pytest.mark.parametrize(("widths", "option"), [((96, 128), "--vision-heads N"), ((128, 32), "--text-heads N")])
    def test_those_that_cannot_be_assumed_are_asked_for(self, widths, option):
        with pytest.raises(ValueError, match=rf"may have any number of attention heads; .* FILE FOLDER {option}$"):
            infer_config(self.sizes(*widths))

    def test_given_ones_are_taken(self, caplog):
        config = infer_config(self.sizes(96, 32), heads=(3, 8))
        assert (config.vision.heads, config.text.heads) == (3, 8)
        assert not caplog.messages

    @pytest.mark.parametrize("folder", ["BlipForImageTextRetrieval"], indirect=True)
    def test_a_transformers_config_without_them_means_the_defaults_of_the_library(self, folder):
        path, _ = folder
        values = json.loads((path / "config.json").read_text())
        del values["text_config"]["num_attention_heads"]
        (path / "config.json").write_text(json.dumps(values))
        assert load(path).model.config.text.heads == transformers.BlipTextConfig().num_attention_heads == 8

    @pytest.mark.parametrize("folder", ["BlipForImageTextRetrieval"], indirect=True)
    def test_a_folder_is_not_told_them(self, folder):
        with pytest.raises(CheckpointError, match=r"its config\.json states the attention heads; leave them out"):
            load_any(folder[0], heads=(2, None))
