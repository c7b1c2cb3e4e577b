"""A model starts from a ViT and a BERT as they are and draws the rest; what does not fit is told with what to set."""

import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from models import write_vocabulary
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from capfilt.config.initial import InitialWeights
from capfilt.config.training import ModelSettings
from capfilt.errors import CheckpointError
from capfilt.med.initial import start, take_text
from capfilt.med.vision import resize_positions

transformers = pytest.importorskip("transformers")

WORDS = 24  # of models.write_vocabulary


@pytest.fixture
def settings(tmp_path) -> ModelSettings:
    torch.set_num_threads(1)
    return ModelSettings(
        image_size=32,
        patch_size=8,
        vision_width=48,
        vision_depth=3,
        vision_heads=3,
        text_width=64,
        text_depth=2,
        text_heads=4,
        positions=30,
        dropout=0.0,
        projection=16,
        vocabulary=str(write_vocabulary(tmp_path)),
    )


class TestVision:
    @pytest.fixture
    def vit(self) -> VisionTransformer:
        """A classifier with random weights, as timm and the authors of DeiT save one."""
        torch.manual_seed(0)
        vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, num_classes=7).eval()
        for parameter in vit.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        return vit

    @pytest.fixture(params=["weights.safetensors", "folder", "deit.pth", "imagenet21k.npz"])
    def source(self, request, vit, tmp_path) -> Path:
        path = tmp_path / request.param
        if path.suffix == ".npz":
            np.savez(path, **flax_names(vit))
        elif path.suffix == ".pth":
            torch.save({"model": vit.state_dict()}, path)
        else:
            file = path if path.suffix else path / "model.safetensors"
            file.parent.mkdir(exist_ok=True)
            save_file(vit.state_dict(), file)
        return path

    @torch.inference_mode()
    def test_the_tower_sees_what_the_vit_saw(self, settings, vit, source):
        model = start(settings, InitialWeights(vision=str(source)), 0).model.eval()
        images = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(model.encode_image(images), vit.forward_features(images), rtol=0, atol=1e-5)

    def test_positions_are_interpolated_to_the_image_size(self, settings, vit, source):
        larger = settings.model_copy(update={"image_size": 48})
        model = start(larger, InitialWeights(vision=str(source)), 0).model
        torch.testing.assert_close(model.vision.vit.pos_embed, resize_positions(vit.pos_embed, 37))

    def test_the_rest_stays_as_it_was_drawn(self, settings, source):
        plain, given = (start(settings, InitialWeights(vision=v), 5).model.state_dict() for v in (None, str(source)))
        changed = {name.split(".")[0] for name in plain if not torch.equal(plain[name], given[name])}
        assert changed == {"vision"}

    def test_what_was_taken_and_left_out_is_told(self, settings, source, caplog):
        start(settings, InitialWeights(vision=str(source)), 0)
        head = "head/bias, head/kernel" if source.suffix == ".npz" else "head.bias, head.weight"
        assert caplog.messages == [f"{source}: 42 tensors taken, 0 drawn at random (none), 2 left out ({head})"]

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"vision_width": 96, "vision_depth": 2}, "set model.vision_width: 48, model.vision_depth: 3$"),
            ({"patch_size": 16}, "set model.patch_size: 8$"),
            ({"stem": "conv"}, "set model.stem: patch$"),
        ],
    )
    def test_other_sizes_are_told_with_what_to_set(self, settings, source, changes, told):
        with pytest.raises(CheckpointError, match=rf"{source.name}: is a ViT of other sizes; {told}"):
            start(settings.model_copy(update=changes), InitialWeights(vision=str(source)), 0)

    def test_an_npz_tells_its_heads(self, settings, vit, tmp_path):
        np.savez(tmp_path / "vit.npz", **flax_names(vit))
        other = settings.model_copy(update={"vision_heads": 4})
        with pytest.raises(CheckpointError, match=r"set model\.vision_heads: 3$"):
            start(other, InitialWeights(vision=str(tmp_path / "vit.npz")), 0)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"norm.bias": None}, r"1 tensors do not fit vision \(vision\.vit\.norm\.bias is missing\)"),
            ({"dist_token": torch.zeros(1, 1, 48)}, r"1 tensors do not fit .*vision\.vit\.dist_token is left over"),
            ({"blocks.1.mlp.fc1.bias": torch.zeros(5)}, r"blocks\.1\.mlp\.fc1\.bias is \(5,\), not \(192,\)"),
            ({"pos_embed": torch.zeros(1, 18, 48)}, "has 18 positions, not a class token's and a square of patches'"),
            ({"pos_embed": None}, r"vision\.vit\.pos_embed is missing"),
            ({"patch_embed.proj.weight": None}, r"holds no patch_embed\.proj\.weight; give ViT weights under timm's"),
        ],
    )
    def test_every_tensor_has_to_fit(self, settings, vit, tmp_path, changes, message):
        state = {name: t for name, t in (vit.state_dict() | changes).items() if t is not None}
        save_file(state, tmp_path / "vit.safetensors")
        with pytest.raises(CheckpointError, match=message):
            start(settings, InitialWeights(vision=str(tmp_path / "vit.safetensors")), 0)

    def test_what_is_no_npz_of_a_vit_is_refused(self, settings, vit, tmp_path):
        path = tmp_path / "vit.npz"
        arrays = flax_names(vit)
        del arrays["Transformer/encoderblock_1/LayerNorm_2/bias"]
        np.savez(path, **arrays)
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"vit\.npz: is no ViT in the layout of the ImageNet-21k files"):
                start(settings, InitialWeights(vision=str(path)), 0)
            path.write_bytes(b"half a f")


def flax_names(vit: VisionTransformer) -> dict[str, np.ndarray]:
    """Return a ViT's weights as the ImageNet-21k files hold them, whose matrices have their inputs first."""
    state = {name: tensor.numpy() for name, tensor in vit.state_dict().items()}
    heads, width = vit.blocks[0].attn.num_heads, vit.embed_dim
    arrays = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for i in range(len(vit.blocks)):
        ours, theirs = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for norm, name in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{theirs}{name}/scale"] = state[f"{ours}{norm}.weight"]
            arrays[f"{theirs}{name}/bias"] = state[f"{ours}{norm}.bias"]
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * width, (part + 1) * width)
            arrays[f"{attention}{name}/kernel"] = state[f"{ours}attn.qkv.weight"][rows].T.reshape(width, heads, -1)
            arrays[f"{attention}{name}/bias"] = state[f"{ours}attn.qkv.bias"][rows].reshape(heads, -1)
        arrays[f"{attention}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(heads, -1, width)
        arrays[f"{attention}out/bias"] = state[f"{ours}attn.proj.bias"]
        for layer in (1, 2):
            arrays[f"{theirs}MlpBlock_3/Dense_{layer - 1}/kernel"] = state[f"{ours}mlp.fc{layer}.weight"].T
            arrays[f"{theirs}MlpBlock_3/Dense_{layer - 1}/bias"] = state[f"{ours}mlp.fc{layer}.bias"]
    return arrays


TINY = {"image_size": 64, "patch_size": 16, "vision_width": 192, "vision_depth": 12, "vision_heads": 3}


class TestTimm:
    """Names of timm's models; the hub is a folder here."""

    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch, tmp_path) -> Path:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        return tmp_path / "hub"

    @pytest.fixture
    def deit(self, offline) -> VisionTransformer:
        model = timm.create_model("deit_tiny_patch16_224")
        folder = offline / "models--timm--deit_tiny_patch16_224.fb_in1k"
        (folder / "snapshots" / "0").mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0")
        save_file(model.state_dict(), folder / "snapshots" / "0" / "model.safetensors")
        return model

    def test_a_name_gives_its_published_weights(self, settings, deit):
        model = start(settings.model_copy(update=TINY), InitialWeights(vision="deit_tiny_patch16_224"), 0).model
        assert torch.equal(model.vision.vit.blocks[11].mlp.fc2.weight, deit.blocks[11].mlp.fc2.weight)
        assert torch.equal(model.vision.vit.pos_embed, resize_positions(deit.pos_embed, 17))

    def test_a_name_tells_the_heads(self, settings, deit):
        other = settings.model_copy(update={**TINY, "vision_heads": 12})
        with pytest.raises(CheckpointError, match=r"deit_tiny_patch16_224: is a ViT of other sizes; set .*heads: 3$"):
            start(other, InitialWeights(vision="deit_tiny_patch16_224"), 0)

    def test_weights_that_cannot_be_fetched(self, settings):
        with pytest.raises(CheckpointError, match=r"deit_tiny_patch16_224: timm cannot get its weights \(.+\); bring"):
            start(settings, InitialWeights(vision="deit_tiny_patch16_224"), 0)

    @pytest.mark.parametrize("source", ["deit_bass_patch16_224", "weights/deit.pth"])
    def test_neither_a_file_nor_a_name(self, settings, source):
        with pytest.raises(CheckpointError, match=rf"^{source}: is no file, no folder and no model of timm; give ViT"):
            start(settings, InitialWeights(vision=source), 0)


class TestText:
    def bert(self, kind: str = "BertForPreTraining", **changes: object):
        """Return one of transformers' classes with random weights; BLIP has no token types, so they are 0."""
        torch.manual_seed(0)
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
        config = transformers.BertConfig(vocab_size=WORDS, max_position_embeddings=40, **{**sizes, **changes})
        model = getattr(transformers, kind)(config).eval()
        for name, parameter in model.named_parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
            if "token_type" in name:
                parameter.data.zero_()
        return model

    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        write_vocabulary(tmp_path / "bert")
        self.bert().save_pretrained(tmp_path / "bert")
        return tmp_path / "bert"

    def given(self, settings, folder, seed: int = 0):
        return start(settings, InitialWeights(text=str(folder)), seed).model.eval()

    @torch.inference_mode()
    def test_texts_are_read_as_by_the_bert_in_both_self_attentions(self, settings, folder):
        model, bert = self.given(settings, folder), self.bert()
        ids, keep = torch.randint(5, WORDS, (3, 9)), torch.arange(9) < torch.tensor([[9], [4], [7]])

        expected = bert(input_ids=ids, attention_mask=keep.long(), output_hidden_states=True)

        states = model.text.encode(ids, keep)
        torch.testing.assert_close(states[keep], expected.hidden_states[-1][keep], rtol=0, atol=1e-5)
        logits = model.text.logits(states)[..., :WORDS]
        torch.testing.assert_close(logits[keep], expected.prediction_logits[keep], rtol=0, atol=1e-4)
        for block in model.text.blocks:
            encoder, decoder = block.encoder_attn.state_dict(), block.decoder_attn.state_dict()
            assert all(torch.equal(tensor, decoder[name]) for name, tensor in encoder.items())

    def test_what_a_bert_lacks_is_drawn_at_its_deviation_from_the_seed(self, settings, folder):
        model, again, other = (self.given(settings, folder, seed).state_dict() for seed in (1, 1, 2))
        changed = {name for name in model if not torch.equal(model[name], other[name]) and name.startswith("text.")}
        assert {name for name in changed if ".cross_attn." not in name} == {"text.embeddings.words.weight"}
        assert torch.equal(model["text.embeddings.words.weight"][:WORDS], other["text.embeddings.words.weight"][:WORDS])
        assert all(torch.equal(model[name], again[name]) for name in model)
        for name in ("query", "key", "value", "out"):
            weight, bias = (model[f"text.blocks.1.cross_attn.{name}.{part}"] for part in ("weight", "bias"))
            assert float(weight.std()) == pytest.approx(0.02, rel=0.1)
            assert not bias.any()
        assert float(model["text.embeddings.words.weight"][WORDS:].std()) == pytest.approx(0.02, rel=0.25)
        assert not model["text.head.bias"][WORDS:].any()

    def test_the_rest_stays_as_it_was_drawn(self, settings, folder):
        plain, given = (start(settings, InitialWeights(text=t), 5).model.state_dict() for t in (None, str(folder)))
        assert {n.split(".")[0] for n in plain if not torch.equal(plain[n], given[n])} == {"text"}

    def test_a_bert_without_language_head_leaves_it_to_the_seed(self, settings, tmp_path, caplog):
        write_vocabulary(tmp_path / "bare")
        self.bert("BertModel").save_pretrained(tmp_path / "bare")
        checkpoint = start(settings, InitialWeights(), 0)

        taken, drawn, left_out = take_text(checkpoint.model, checkpoint.tokens, str(tmp_path / "bare"))

        assert {name.split(".")[1] for name in taken} == {"blocks", "embeddings"}
        assert {name for name in drawn if ".cross_attn." not in name} == {
            "[DEC] and [ENC] of text.embeddings.words.weight",
            *("text.head.bias", "text.head.dense.bias", "text.head.dense.weight"),
            *("text.head.norm.bias", "text.head.norm.weight"),
        }
        assert left_out == ["embeddings.token_type_embeddings.weight", "pooler.dense.bias", "pooler.dense.weight"]
        assert float(checkpoint.model.state_dict()["text.head.dense.weight"].std()) == pytest.approx(0.02, rel=0.1)

    def test_the_first_files_of_bert_are_read_like_later_ones(self, settings, folder):
        """Their norms are called as in TensorFlow, their tensors lie in a .bin."""
        expected = self.given(settings, folder).state_dict()
        state = load_file(folder / "model.safetensors")
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
            for name, tensor in state.items()
        }
        torch.save(old, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        found = self.given(settings, folder).state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())

    def test_what_was_taken_drawn_and_left_out_is_told(self, settings, folder, caplog):
        self.given(settings, folder)
        assert caplog.messages == [
            f"{folder}: 61 tensors taken, 21 drawn at random ([DEC] and [ENC] of text.embeddings.words.weight, "
            "text.blocks.0.cross_attn.key.bias, text.blocks.0.cross_attn.key.weight, ...), 5 left out "
            "(bert.embeddings.token_type_embeddings.weight, bert.pooler.dense.bias, bert.pooler.dense.weight, ...)"
        ]

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"text_width": 32, "text_depth": 3}, "set model.text_width: 64, model.text_depth: 2$"),
            ({"text_heads": 8, "positions": 60}, "set model.text_heads: 4, model.positions: 40$"),
        ],
    )
    def test_other_sizes_are_told_with_what_to_set(self, settings, folder, changes, told):
        with pytest.raises(CheckpointError, match=f"bert: is a BERT of other sizes; {told}"):
            self.given(settings.model_copy(update=changes), folder)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("model_type", "roberta", r"config\.json is of model type roberta; bert is read"),
            ("hidden_act", "relu", "has hidden_act: relu, and MED's text stack gelu; give another BERT"),
            ("layer_norm_eps", 1e-5, "has layer_norm_eps: 1e-05, and MED's text stack 1e-12; give another BERT"),
        ],
    )
    def test_what_is_computed_otherwise_is_refused(self, settings, folder, key, value, message):
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {key: value}))
        with pytest.raises(CheckpointError, match=message):
            self.given(settings, folder)

    def test_another_vocabulary_is_refused(self, settings, folder):
        (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("dog", "fog"))
        with pytest.raises(
            CheckpointError, match=r"its words are not those of model\.vocabulary; set .*bert/vocab\.txt$"
        ):
            self.given(settings, folder)

    def test_another_inner_width_is_refused(self, settings, tmp_path):
        write_vocabulary(tmp_path / "slim")
        self.bert(intermediate_size=96).save_pretrained(tmp_path / "slim")
        with pytest.raises(CheckpointError, match=r"6 tensors do not fit text \(text\.blocks\.0\.mlp\.down\.weight is"):
            self.given(settings, tmp_path / "slim")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            (
                "bert.encoder.layer.1.output.dense.bias",
                r"1 tensors do not fit text \(text\.blocks\.1\.mlp\.down\.bias is",
            ),
            ("cls.predictions.transform.dense.bias", r"text\.head\.dense\.bias is missing"),
        ],
    )
    def test_a_missing_tensor_is_told(self, settings, folder, name, message):
        state = load_file(folder / "model.safetensors")
        save_file({n: t for n, t in state.items() if n != name}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            self.given(settings, folder)

    def test_a_tensor_that_no_bert_has_is_told(self, settings, folder):
        state = load_file(folder / "model.safetensors")
        save_file(state | {"classifier.weight": torch.zeros(2)}, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=r"1 tensors do not fit text \(classifier\.weight is left over\)"):
            self.given(settings, folder)

    def test_nothing_there(self, settings, tmp_path):
        with pytest.raises(CheckpointError, match=r"no BERT at .*gone; give a folder with config\.json"):
            self.given(settings, tmp_path / "gone")


def test_nothing_given_is_all_random_from_the_seed(settings):
    one, same, other = (start(settings, InitialWeights(), seed).model.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["vision.vit.patch_embed.proj.weight"], other["vision.vit.patch_embed.proj.weight"])
