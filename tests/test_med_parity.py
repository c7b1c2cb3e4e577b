"""MED against reference outputs of the original implementation (tiny random weights, float32)."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from models import sample
from safetensors.torch import load_file, save_file
from torch import Tensor

from capfilt.config import Sampling
from capfilt.med.beam import beam_search
from capfilt.med.checkpoints import Checkpoint, load, save
from capfilt.med.decoding import next_logits
from capfilt.med.losses import language_loss
from capfilt.med.model import MED
from capfilt.med.published import fit_positions, from_published, infer_config
from capfilt.med.sampling import ban, nucleus, penalise
from capfilt.med.tokenizer import Tokenizer

HEADS = (4, 4)


class Fixture(NamedTuple):
    meta: dict
    tensors: dict[str, Tensor]
    state: dict[str, Tensor]
    model: MED
    tokenizer: Tokenizer

    def tolerance(self, name: str) -> float:
        """Ten times the numerical noise that the reference itself shows between float32 and float64."""
        return 10 * self.meta["fp32_vs_fp64_max_abs_diff"][name]

    def check(self, name: str, found: Tensor, where: Tensor | None = None) -> None:
        expected = self.tensors[f"out.{name}"]
        if where is not None:
            found, expected = found[where], expected[where]
        torch.testing.assert_close(found, expected, rtol=0, atol=self.tolerance(name))


@pytest.fixture(scope="module")
def reference(shared: Path) -> Fixture:
    folder = shared / "fixtures" / "a"
    tensors = {
        k: t.float() if t.is_floating_point() else t for k, t in load_file(folder / "tensors.safetensors").items()
    }
    state = load_file(folder / "pretrain_state.safetensors")
    return Fixture(
        json.loads((folder / "meta.json").read_text()), tensors, state, build(state), Tokenizer(folder / "vocab.txt")
    )


def build(state: dict[str, Tensor], image_size: int | None = None) -> MED:
    ours = from_published(state, "fixture")
    config = infer_config(ours, image_size, HEADS)
    model = MED(config)
    model.load_state_dict(fit_positions(ours, config))
    return model.eval()


@pytest.fixture(scope="module")
def image(reference: Fixture) -> Tensor:
    with torch.inference_mode():
        return reference.model.encode_image(reference.tensors["in.pixel_values"])


@pytest.fixture(scope="module")
def texts(reference: Fixture) -> tuple[Tensor, Tensor]:
    return reference.tensors["in.input_ids"], reference.tensors["in.attention_mask"].bool()


@torch.inference_mode()
def test_image_tokens_and_features(reference: Fixture, image: Tensor) -> None:
    reference.check("image_embeds", image)
    reference.check("image_feat", reference.model.image_features(image))


@torch.inference_mode()
def test_text_tokens_features_and_cosines(reference: Fixture, image: Tensor, texts: tuple[Tensor, Tensor]) -> None:
    ids, keep = texts
    reference.check("text_embeds", reference.model.text.encode(ids, keep), keep)
    features = reference.model.text_features(ids, keep)
    reference.check("text_feat", features)
    reference.check("itc_sim", reference.model.image_features(image) @ features.T)


@torch.inference_mode()
@pytest.mark.parametrize("first", ["enc", "cls"])
def test_matching_logits_of_every_pair(
    reference: Fixture, image: Tensor, texts: tuple[Tensor, Tensor], first: str
) -> None:
    ids, keep = texts[0].clone(), texts[1]
    if first == "enc":
        ids[:, 0] = reference.tokenizer.enc
    rows, keeps = ids.repeat(len(image), 1), keep.repeat(len(image), 1)
    logits = reference.model.match(rows, keeps, reference.model.project_image(image)).view(len(image), len(ids), 2)
    reference.check(f"itm_logits_{first}", logits)
    reference.check(f"itm_prob_{first}", logits.softmax(-1)[..., 1])


@torch.inference_mode()
def test_states_of_the_image_grounded_encoder(reference: Fixture, image: Tensor, texts: tuple[Tensor, Tensor]) -> None:
    ids, keep = texts[0].clone(), texts[1]
    ids[:, 0] = reference.tokenizer.enc
    states = reference.model.text.encode(ids, keep, reference.model.project_image(image[:1]))
    reference.check("multimodal_hidden_img0", states, keep)


@torch.inference_mode()
def test_language_logits_and_losses(reference: Fixture, image: Tensor) -> None:
    ids, keep = reference.tensors["in.lm_input_ids"], reference.tensors["in.lm_attention_mask"].bool()
    logits = reference.model.decode(ids, reference.model.project_image(image))
    reference.check("lm_logits", logits, keep)
    reference.check("lm_loss", language_loss(logits, ids, keep)[None])
    each = language_loss(logits, ids, keep, reduction="none")
    reference.check("lm_loss_per_token_smoothed", each, keep[:, 1:])
    reference.check("lm_loss_per_sample_sum", each.sum(1))


@torch.inference_mode()
def test_caption_loss_leaves_the_prompt_out(reference: Fixture, image: Tensor) -> None:
    ids, keep = reference.tensors["in.cap_input_ids"], reference.tensors["in.cap_attention_mask"].bool()
    logits = reference.model.decode(ids, reference.model.project_image(image))
    loss = language_loss(logits, ids, keep, prompt=reference.meta["numbers"]["prompt_length"])
    assert loss.item() == pytest.approx(reference.meta["numbers"]["caption_ft_loss"], abs=1e-5)


@torch.inference_mode()
def test_positions_are_resized_to_a_larger_image(reference: Fixture) -> None:
    model = build(reference.state, image_size=96)
    expected = reference.tensors["out.hires.pos_embed"]
    torch.testing.assert_close(model.vision.vit.pos_embed.data, expected, rtol=0, atol=1e-6)
    found = model.encode_image(reference.tensors["in.hires_pixel_values"])
    expected = reference.tensors["out.hires.image_embeds"]
    torch.testing.assert_close(found, expected, rtol=0, atol=reference.tolerance("image_embeds"))


@torch.inference_mode()
def test_greedy_ids(reference: Fixture, image: Tensor) -> None:
    settings = Sampling(method="greedy", repetition_penalty=1.0, max_length=20, min_length=5)
    prompt = reference.tensors["in.samp_prefix_ids"][0].tolist()
    written = sample(reference.model, reference.model.project_image(image), prompt, reference.tokenizer.end, settings)
    assert written.ids.tolist() == reference.tensors["out.gen.greedy_max20_min5.ids"].tolist()


@torch.inference_mode()
@pytest.mark.parametrize(
    "name", ["beam3_max20_min5", "beam3_max20_min5_rep1.1", "beam3_max30_min10", "beam5_max12_min1"]
)
def test_beam_ids_and_scores(reference: Fixture, image: Tensor, name: str) -> None:
    kwargs = reference.meta["generation"][name]["kwargs"]
    settings = Sampling(
        method="beam",
        beams=kwargs["num_beams"],
        repetition_penalty=kwargs["repetition_penalty"],
        max_length=kwargs["max_length"],
        min_length=kwargs["min_length"],
    )
    prompt = reference.tensors["in.samp_prefix_ids"][0].tolist()
    written = beam_search(
        reference.model, reference.model.project_image(image), prompt, reference.tokenizer.end, settings
    )
    expected = reference.tensors[f"out.gen.{name}.ids"]
    assert written.ids[:, : expected.shape[1]].tolist() == expected.tolist()
    # The reference gives log-probability over length; length leaves the end token out.
    lengths = ((expected != 0) & (expected != reference.tokenizer.end)).sum(1)
    torch.testing.assert_close(
        written.logprobs / lengths, reference.tensors[f"out.gen.{name}.sequence_scores"], rtol=0, atol=1e-4
    )


@torch.inference_mode()
def test_logits_after_the_prompt_and_the_sampling_filters(reference: Fixture, image: Tensor) -> None:
    prompt = reference.tensors["in.samp_prefix_ids"]
    projected = reference.model.project_image(image)
    logits = next_logits(reference.model, prompt, projected, reference.model.text.caches(len(image), 20), 0)
    torch.testing.assert_close(logits, reference.tensors["out.samp.next_logits"], rtol=0, atol=5e-4)

    scores = ban(penalise(reference.tensors["out.samp.next_logits"], prompt, 1.1), reference.tokenizer.end)
    torch.testing.assert_close(scores, reference.tensors["out.samp.after_processors"], rtol=0, atol=1e-5)
    for top_k, name in ((50, "after_topk50_topp0.9"), (0, "after_topp0.9_only")):
        probabilities, ids = nucleus(scores, top_k, 0.9)
        kept = torch.zeros_like(scores).scatter(1, ids, probabilities) > 0
        assert torch.equal(kept, reference.tensors[f"out.samp.{name}"].isfinite())


def test_tokenizer_cases(reference: Fixture) -> None:
    for case in reference.meta["tokenizer_cases"]:
        assert reference.tokenizer.encode(case["text"], reference.tokenizer.cls, 512) == case["ids"], case["text"]


def test_a_saved_folder_loads_back_to_the_same_bits(reference: Fixture, tmp_path: Path) -> None:
    save(Checkpoint(reference.model, reference.tokenizer), tmp_path / "med")
    model = load(tmp_path / "med").model
    assert model.config == reference.model.config
    for name, tensor in reference.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


GROUPS = {
    "captioning": ("visual_encoder.", "text_decoder."),
    "retrieval": ("visual_encoder", "text_encoder", "vision_proj", "text_proj", "itm_head", "temp", "image_queue"),
    "pre-training": ("",),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_the_original_files_load_by_their_names(reference: Fixture, kind: str) -> None:
    model = build({name: t for name, t in reference.state.items() if name.startswith(GROUPS[kind])})
    assert (model.config.encoder, model.config.decoder) == {
        "captioning": (False, True),
        "retrieval": (True, False),
        "pre-training": (True, True),
    }[kind]
    found = reference.model.state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in model.state_dict().items())


def test_shared_weights_stand_once_in_the_module_tree(reference: Fixture, tmp_path: Path) -> None:
    pointers = [p.data_ptr() for p in reference.model.parameters()]
    assert len(set(pointers)) == len(pointers)
    save_file(reference.model.state_dict(), tmp_path / "all.safetensors")  # refuses tensors that share memory
