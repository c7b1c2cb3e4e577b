"""What is written for transformers gives there what it gives here, and comes back to the same bits."""

import json
import re

import numpy as np
import pytest
import torch
from models import small_checkpoint, write_vocabulary
from PIL import Image
from safetensors.torch import load_file

from capfilt.config.sizes import MEDConfig, TextConfig, VisionConfig
from capfilt.errors import CheckpointError
from capfilt.med.checkpoints import Checkpoint, load
from capfilt.med.model import MED
from capfilt.med.published import translate
from capfilt.med.tokenizer import Tokenizer
from capfilt.med.transformers_layout import LAYOUTS, save_transformers, to_transformers
from capfilt.med.vision import normalise

transformers = pytest.importorskip("transformers")

CAPTIONING, RETRIEVAL = "transformers-captioning", "transformers-retrieval"
# Widths that differ, depths that differ, and heads that no rule of thumb guesses.
SHAPES = {
    "wide text": {"vision": (24, 3, 2), "text": (40, 2, 4), "mlp_width": 72, "projection": 12, "image_size": 24},
    "wide vision": {"vision": (48, 2, 6), "text": (32, 3, 8), "mlp_width": 80, "projection": 20, "image_size": 32},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def checkpoint(request, tmp_path) -> Checkpoint:
    """A model in which every tensor differs from its neighbours, norms and biases included."""
    torch.manual_seed(0)
    shape, tokenizer = request.param, Tokenizer(write_vocabulary(tmp_path))
    vision, text = (dict(zip(("width", "depth", "heads"), shape[half], strict=True)) for half in ("vision", "text"))
    sizes = MEDConfig(
        vision=VisionConfig(image_size=shape["image_size"], patch_size=8, **vision),
        text=TextConfig(vocabulary=len(tokenizer), mlp_width=shape["mlp_width"], positions=30, dropout=0.0, **text),
        projection=shape["projection"],
    )
    model = MED(sizes).initialise(0).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return Checkpoint(model, tokenizer)


def exported(checkpoint: Checkpoint, folder, layout: str):
    """Return transformers' model and processor of an exported checkpoint; no weight may be missing or left over."""
    save_transformers(checkpoint, folder / layout, layout, "med")
    kind = getattr(transformers, LAYOUTS[layout].architecture)
    model, loading = kind.from_pretrained(folder / layout, output_loading_info=True)
    assert not any(loading.values()), loading
    return model.eval(), transformers.BlipProcessor.from_pretrained(folder / layout)


def inputs(checkpoint: Checkpoint):
    side = checkpoint.model.config.vision.image_size
    return torch.randn(2, 3, side, side), torch.randint(5, 20, (2, 7))


@torch.inference_mode()
def test_transformers_writes_the_same_captions(checkpoint, tmp_path):
    theirs, _ = exported(checkpoint, tmp_path, CAPTIONING)
    model = checkpoint.model
    pixels, ids = inputs(checkpoint)
    ids[:, 0] = checkpoint.tokenizer.dec

    image = model.project_image(model.encode_image(pixels))
    expected = model.decode(ids, image)
    torch.testing.assert_close(theirs(pixel_values=pixels, input_ids=ids).logits, expected, rtol=0, atol=1e-4)

    written = ids[:, :3]
    for _ in range(6):
        written = torch.cat([written, model.decode(written, image)[:, -1:].argmax(dim=-1)], dim=1)
    prompt = torch.cat([ids[:, :3], torch.full((2, 1), checkpoint.tokenizer.end)], dim=1)  # generate cuts the last one
    found = theirs.generate(pixel_values=pixels, input_ids=prompt, max_new_tokens=6, do_sample=False)
    for row, caption in zip(found.tolist(), written.tolist(), strict=True):
        end = caption.index(checkpoint.tokenizer.end) if checkpoint.tokenizer.end in caption else len(caption)
        assert row[:end] == caption[:end]


@torch.inference_mode()
def test_transformers_gives_texts_the_same_scores(checkpoint, tmp_path):
    theirs, _ = exported(checkpoint, tmp_path, RETRIEVAL)
    model = checkpoint.model
    pixels, ids = inputs(checkpoint)
    keep = torch.tensor([[True] * 7, [True] * 5 + [False] * 2])
    image = model.encode_image(pixels)

    ids[:, 0] = checkpoint.tokenizer.cls
    cosine = theirs(input_ids=ids, pixel_values=pixels, attention_mask=keep.long(), use_itm_head=False).itm_score
    torch.testing.assert_close(
        cosine, model.image_features(image) @ model.text_features(ids, keep).T, rtol=0, atol=1e-4
    )
    ids[:, 0] = checkpoint.tokenizer.enc
    matching = theirs(input_ids=ids, pixel_values=pixels, attention_mask=keep.long()).itm_score
    torch.testing.assert_close(matching, model.match(ids, keep, model.project_image(image)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_exported_comes_back_to_the_same_bits(checkpoint, tmp_path, layout):
    save_transformers(checkpoint, tmp_path / "out", layout, "med")

    back = load(tmp_path / "out")

    role = {"encoder": layout == RETRIEVAL, "decoder": layout == CAPTIONING}
    before, after = checkpoint.model.config, back.model.config
    assert after.vision == before.vision
    assert after.text.model_copy(update={"dropout": 0.0}) == before.text
    assert {"encoder": after.encoder, "decoder": after.decoder} == role
    assert layout == CAPTIONING or after.projection == before.projection
    assert back.tokenizer.vocabulary == checkpoint.tokenizer.vocabulary
    state = checkpoint.model.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in back.model.state_dict().items() if name != "temperature")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_that_transformers_saved_comes_back_without_a_vocab_txt(checkpoint, tmp_path, layout):
    theirs, processor = exported(checkpoint, tmp_path, layout)
    theirs.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved/vocab.txt").exists()

    before, back = load(tmp_path / layout), load(tmp_path / "saved")

    assert back.model.config.text.model_copy(update={"dropout": 0.0}) == checkpoint.model.config.text
    assert back.tokenizer.vocabulary == checkpoint.tokenizer.vocabulary
    assert all(torch.equal(t, back.model.state_dict()[name]) for name, t in before.model.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_processor_reads_images_and_texts_alike(checkpoint, tmp_path, layout):
    _, processor = exported(checkpoint, tmp_path, layout)
    side, text = checkpoint.model.config.vision.image_size, "Two DOGS on the grass, blue"
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)

    found = processor(images=Image.fromarray(pixels), text=text, return_tensors="pt")

    tokenizer = checkpoint.tokenizer
    assert found.input_ids.tolist() == [tokenizer.encode(text, tokenizer.cls, 30)]
    expected = normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    torch.testing.assert_close(found.pixel_values, expected, rtol=0, atol=1e-6)
    assert processor.tokenizer.bos_token_id == tokenizer.dec
    assert processor.tokenizer.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [tokenizer.dec, tokenizer.enc]
    assert processor(images=Image.new("RGB", (90, 50)), return_tensors="pt").pixel_values.shape == (1, 3, side, side)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_transformers_guesses_otherwise_is_written_out(checkpoint, tmp_path, layout):
    model, _ = exported(checkpoint, tmp_path, layout)
    vision, text, sizes = model.config.vision_config, model.config.text_config, checkpoint.model.config
    stack = model.text_decoder.bert if layout == CAPTIONING else model.text_encoder

    assert (vision.layer_norm_eps, vision.initializer_range) == (1e-6, 0.02)
    assert (vision.num_attention_heads, text.num_attention_heads) == (sizes.vision.heads, sizes.text.heads)
    assert (text.label_smoothing, text.layer_norm_eps, text.encoder_hidden_size) == (0.1, 1e-12, sizes.vision.width)
    assert (text.bos_token_id, text.sep_token_id, text.pad_token_id) == (24, 3, 0)
    assert model.config.image_text_hidden_size == sizes.projection
    assert model.vision_model.post_layernorm.eps == 1e-6
    assert stack.encoder.layer[0].crossattention.self.key.in_features == sizes.vision.width
    if layout == CAPTIONING:
        assert model.text_decoder.label_smoothing == 0.1
        assert model.text_decoder.cls.predictions.decoder.weight is stack.embeddings.word_embeddings.weight


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_table_of_names_reads_the_same_in_both_directions(checkpoint, layout):
    state = checkpoint.model.state_dict()
    theirs = to_transformers(state, layout)
    kept = [name for name in theirs if not re.search(r"predictions\.decoder", name)]

    assert all(theirs[name].equal(state[translate(name)]) for name in kept)
    assert {translate(name) for name in kept} == {name for name in state if not layout.left_out.fullmatch(name)}


class TestWhatCannotBeExported:
    @pytest.mark.parametrize(
        ("layout", "part", "role"), [(CAPTIONING, "no decoder", "filter"), (RETRIEVAL, "no encoder", "captioner")]
    )
    def test_a_model_without_the_role(self, tmp_path, layout, part, role):
        checkpoint = small_checkpoint(tmp_path, encoder=role == "filter", decoder=role == "captioner")
        with pytest.raises(CheckpointError, match=f"^m: has {part}.*; it can serve as {role}, not as"):
            save_transformers(checkpoint, tmp_path / "out", layout, "m")
        assert not (tmp_path / "out").exists()

    def test_a_convolutional_stem(self, tmp_path):
        tokenizer = Tokenizer(write_vocabulary(tmp_path))
        sizes = small_checkpoint(tmp_path).model.config
        conv = sizes.model_copy(update={"vision": sizes.vision.model_copy(update={"stem": "conv"})})
        with pytest.raises(CheckpointError, match=r"^m: has stem: conv, which BlipForConditionalGeneration lacks$"):
            save_transformers(Checkpoint(MED(conv), tokenizer), tmp_path / "out", CAPTIONING, "m")


def test_an_export_that_was_cut_short_is_no_checkpoint(checkpoint, tmp_path, monkeypatch):
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("capfilt.med.transformers_layout.save_file", die)
    with pytest.raises(KeyboardInterrupt):
        save_transformers(checkpoint, tmp_path / "out", CAPTIONING, "med")

    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        load(tmp_path / "out")


def test_no_tensor_is_written_that_the_class_does_not_have(checkpoint, tmp_path):
    save_transformers(checkpoint, tmp_path / "out", RETRIEVAL, "med")
    names = load_file(tmp_path / "out" / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {
        "vision_model",
        "text_encoder",
        "vision_proj",
        "text_proj",
        "itm_head",
    }
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["BlipForImageTextRetrieval"]
