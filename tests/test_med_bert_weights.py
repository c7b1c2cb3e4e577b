"""A model starts from a BERT as it is and draws the rest; what does not fit is told with what to set."""

import json
import re
from pathlib import Path

import pytest
import torch
from models import start_settings, write_vocabulary
from safetensors.torch import load_file, save_file

from capfilt.config.initial import InitialWeights
from capfilt.config.model import ModelSettings
from capfilt.errors import CheckpointError
from capfilt.med.initial import start, take_text

transformers = pytest.importorskip("transformers")

WORDS = 24  # of models.write_vocabulary


@pytest.fixture
def settings(tmp_path) -> ModelSettings:
    return start_settings(tmp_path)


def small_bert(kind: str = "BertForPreTraining", **changes: object):
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
def folder(tmp_path) -> Path:
    write_vocabulary(tmp_path / "bert")
    small_bert().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def started(settings, folder, seed: int = 0):
    return start(settings, InitialWeights(text=str(folder)), seed).model.eval()


@torch.inference_mode()
def test_texts_are_read_as_by_the_bert_in_both_self_attentions(settings, folder):
    model, bert = started(settings, folder), small_bert()
    ids, keep = torch.randint(5, WORDS, (3, 9)), torch.arange(9) < torch.tensor([[9], [4], [7]])

    expected = bert(input_ids=ids, attention_mask=keep.long(), output_hidden_states=True)

    states = model.text.encode(ids, keep)
    torch.testing.assert_close(states[keep], expected.hidden_states[-1][keep], rtol=0, atol=1e-5)
    logits = model.text.logits(states)[..., :WORDS]
    torch.testing.assert_close(logits[keep], expected.prediction_logits[keep], rtol=0, atol=1e-4)
    for block in model.text.blocks:
        encoder, decoder = block.encoder_attn.state_dict(), block.decoder_attn.state_dict()
        assert all(torch.equal(tensor, decoder[name]) for name, tensor in encoder.items())


def test_what_a_bert_lacks_is_drawn_at_its_deviation_from_the_seed(settings, folder):
    model, again, other = (started(settings, folder, seed).state_dict() for seed in (1, 1, 2))
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


def test_the_rest_stays_as_it_was_drawn(settings, folder):
    plain, given = (start(settings, InitialWeights(text=t), 5).model.state_dict() for t in (None, str(folder)))
    assert {n.split(".")[0] for n in plain if not torch.equal(plain[n], given[n])} == {"text"}


def test_a_bert_without_language_head_leaves_it_to_the_seed(settings, tmp_path, caplog):
    write_vocabulary(tmp_path / "bare")
    small_bert("BertModel").save_pretrained(tmp_path / "bare")
    checkpoint = start(settings, InitialWeights(), 0)

    taken, drawn, left_out = take_text(checkpoint.model, checkpoint.tokenizer, str(tmp_path / "bare"))

    assert {name.split(".")[1] for name in taken} == {"blocks", "embeddings"}
    assert {name for name in drawn if ".cross_attn." not in name} == {
        "[DEC] and [ENC] of text.embeddings.words.weight",
        *("text.head.bias", "text.head.dense.bias", "text.head.dense.weight"),
        *("text.head.norm.bias", "text.head.norm.weight"),
    }
    assert left_out == ["embeddings.token_type_embeddings.weight", "pooler.dense.bias", "pooler.dense.weight"]
    assert float(checkpoint.model.state_dict()["text.head.dense.weight"].std()) == pytest.approx(0.02, rel=0.1)


def test_the_first_files_of_bert_are_read_like_later_ones(settings, folder):
    """Their norms are called as in TensorFlow, their tensors lie in a .bin."""
    expected = started(settings, folder).state_dict()
    state = load_file(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in state.items()
    }
    torch.save(old, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = started(settings, folder).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_what_was_taken_drawn_and_left_out_is_told(settings, folder, caplog):
    started(settings, folder)
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
def test_other_sizes_are_told_with_what_to_set(settings, folder, changes, told):
    with pytest.raises(CheckpointError, match=f"bert: holds a BERT of other sizes; {told}"):
        started(settings.model_copy(update=changes), folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model_type", "roberta", r"config\.json is of model type roberta; bert is read"),
        ("hidden_act", "relu", "has hidden_act: relu, and MED's text stack gelu; give another BERT"),
        ("layer_norm_eps", 1e-5, "has layer_norm_eps: 1e-05, and MED's text stack 1e-12; give another BERT"),
    ],
)
def test_what_is_computed_otherwise_is_refused(settings, folder, key, value, message):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {key: value}))
    with pytest.raises(CheckpointError, match=message):
        started(settings, folder)


def test_another_vocabulary_is_refused(settings, folder):
    (folder / "vocab.txt").write_text((folder / "vocab.txt").read_text().replace("dog", "fog"))
    with pytest.raises(CheckpointError, match=r"its words are not those of model\.vocabulary; set .*bert/vocab\.txt$"):
        started(settings, folder)


def test_words_are_taken_from_the_tokenizer_where_transformers_saved_no_vocab_txt(settings, folder):
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    (folder / "vocab.txt").unlink()
    started(settings, folder)


def test_another_inner_width_is_refused(settings, tmp_path):
    write_vocabulary(tmp_path / "slim")
    small_bert(intermediate_size=96).save_pretrained(tmp_path / "slim")
    with pytest.raises(
        CheckpointError, match=r"tensors that do not fit text: 6 \(text\.blocks\.0\.mlp\.down\.weight is"
    ):
        started(settings, tmp_path / "slim")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "bert.encoder.layer.1.output.dense.bias",
            r"tensors that do not fit text: 1 \(text\.blocks\.1\.mlp\.down\.bias is",
        ),
        ("cls.predictions.transform.dense.bias", r"text\.head\.dense\.bias is missing"),
        ("bert.embeddings.position_embeddings.weight", r"text\.embeddings\.positions\.weight is missing"),
    ],
)
def test_a_missing_tensor_is_told(settings, folder, name, message):
    state = load_file(folder / "model.safetensors")
    save_file({n: t for n, t in state.items() if n != name}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        started(settings, folder)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("bert.embeddings.word_embeddings.weight", shape) for shape in [(), (WORDS,), (WORDS, 16), (7, 64)]),
        *(("cls.predictions.bias", shape) for shape in [(7,), (WORDS, 1)]),
        ("bert.embeddings.position_embeddings.weight", ()),
    ],
)
def test_a_table_of_another_shape_is_told(settings, folder, name, shape):
    weights = load_file(folder / "model.safetensors") | {name: torch.zeros(shape)}
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"tensors that do not fit text: 1 \(.* is {re.escape(str(shape))}, not"):
        started(settings, folder)


def test_a_tensor_that_no_bert_has_is_told(settings, folder):
    state = load_file(folder / "model.safetensors")
    save_file(state | {"classifier.weight": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tensors that do not fit text: 1 \(classifier\.weight is left over\)"):
        started(settings, folder)


def test_nothing_there(settings, tmp_path):
    with pytest.raises(CheckpointError, match=r"no BERT at .*gone; give a folder with config\.json"):
        started(settings, tmp_path / "gone")
