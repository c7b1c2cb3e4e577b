"""VQA and NLVR2 models start from what a pre-trained MED has."""

import logging

import pytest
import torch
from models import small_checkpoint, small_config

from capfilt.errors import CheckpointError
from capfilt.med.downstream import nlvr2_from, vqa_from
from capfilt.med.model import MED


@pytest.fixture
def med(tmp_path):
    return small_checkpoint(tmp_path).model


def wide_text(width: int) -> MED:
    """A model whose text stack is wider than its vision tower."""
    config = small_config(20)
    return MED(config.model_copy(update={"text": config.text.model_copy(update={"width": width})})).initialise(0)


def test_a_vqa_model_has_the_weights_of_encoder_and_decoder(med, caplog):
    vqa, state = vqa_from(med, drop_path=0.1, seed=0), med.state_dict()

    for name, tensor in vqa.state_dict().items():
        source = name.replace("questions.", "text.").replace("answers.", "text.")
        assert torch.equal(tensor, state[source]), name
    assert vqa.config.vision.drop_path == 0.1
    assert not caplog.records


def test_a_vqa_decoder_draws_and_tells_the_attention_that_does_not_fit(caplog):
    med = wide_text(48)
    with caplog.at_level(logging.WARNING):
        vqa = vqa_from(med, drop_path=0.0, seed=0)

    assert "4 tensors are not in the checkpoint and start at random: answers.blocks.0.cross_attn.key" in caplog.text
    key, state = "blocks.1.cross_attn.{}", vqa.answers.state_dict()
    assert state[key.format("key.weight")].shape == (48, 48)
    assert state[key.format("key.weight")].std().item() == pytest.approx(0.02 * (768 / 48) ** 0.5, rel=0.1)
    assert torch.equal(state[key.format("query.weight")], med.text.state_dict()[key.format("query.weight")])


def test_both_attentions_of_an_nlvr2_model_start_as_the_single_one(med):
    nlvr2, state = nlvr2_from(med, merge_from=1, drop_path=0.0, seed=0).state_dict(), med.state_dict()

    for side in (0, 1):
        for part in ("query.weight", "key.bias", "out.weight"):
            found = nlvr2[f"text.blocks.1.cross_attn.sides.{side}.{part}"]
            assert torch.equal(found, state[f"text.blocks.1.cross_attn.{part}"]), part
    for name in ("text.blocks.0.cross_attn.norm.weight", "text.blocks.0.encoder_attn.query.weight"):
        assert torch.equal(nlvr2[name], state[name])
    assert "text.blocks.0.cross_attn.merge.weight" not in nlvr2
    assert nlvr2["text.blocks.1.cross_attn.merge.bias"].abs().max() == 0
    assert nlvr2["head.2.weight"].std() > 0


def test_two_equal_images_are_seen_as_one_where_the_mean_is_taken(med):
    """With both attentions equal and no merging weights, the twin encoder is the pre-trained one."""
    nlvr2 = nlvr2_from(med.eval(), merge_from=2, drop_path=0.0, seed=0).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[19, 6, 3], [19, 7, 3]])

    tokens = med.encode_image(images)
    expected = med.text.encode(ids, ids > 0, med.project_image(tokens))

    torch.testing.assert_close(nlvr2.text(ids, ids > 0, (tokens, tokens)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_drawn_follows_from_the_seed(med, seed):
    drawn = nlvr2_from(med, 1, 0.0, seed).head[0].weight
    assert torch.equal(drawn, nlvr2_from(med, 1, 0.0, seed).head[0].weight)
    assert not torch.equal(drawn, nlvr2_from(med, 1, 0.0, seed + 1).head[0].weight)


def test_a_model_that_lacks_a_part_is_refused(tmp_path):
    captioner = small_checkpoint(tmp_path, encoder=False).model
    judge = small_checkpoint(tmp_path, decoder=False).model
    with pytest.raises(
        CheckpointError, match=r"^judge: .* starts from encoder and decoder; give a pre-training checkpoint"
    ):
        vqa_from(judge, 0.0, 0, "judge")
    with pytest.raises(CheckpointError, match="an NLVR2 model starts from an encoder"):
        nlvr2_from(captioner, 6, 0.0, 0)
    with pytest.raises(CheckpointError, match="starts from encoder and decoder"):
        vqa_from(captioner, 0.0, 0)
