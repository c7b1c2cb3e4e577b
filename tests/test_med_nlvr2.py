"""The NLVR2 model against reference outputs of the original implementation, and what holds for any weights."""

import pytest
import torch
import torch.nn.functional as F
from tasks import TOLERANCE, read_reference, reference_nlvr2, small_nlvr2


@torch.inference_mode()
def test_logits_and_loss_of_the_reference(shared):
    reference, model = read_reference(shared), reference_nlvr2(shared)
    tensors = reference.tensors
    images = torch.stack([tensors["in.pixel_values"], tensors["in.nlvr.pixel_values_1"]], dim=1)

    ids = reference.text("nlvr.input_ids_raw", reference.tokenizer.enc)
    logits = model.judge(images, ids, tensors["in.nlvr.mask"].bool())

    torch.testing.assert_close(logits, tensors["out.nlvr.logits"], rtol=0, atol=TOLERANCE)
    loss = F.cross_entropy(logits, tensors["in.nlvr.targets"])
    assert loss.item() == pytest.approx(reference.meta["numbers"]["nlvr_loss"], abs=TOLERANCE)


def test_the_last_blocks_of_the_reference_merge_by_weights(shared):
    model = reference_nlvr2(shared)
    assert [block.cross_attn.merge is not None for block in model.text.blocks] == [False] * 6 + [True] * 2


@torch.inference_mode()
def test_what_pads_a_sentence_changes_nothing(tmp_path):
    model, tokenizer = small_nlvr2(tmp_path)
    images = torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[tokenizer.enc, 7, tokenizer.end, 0, 0]])

    padded, alone = model.judge(images, ids, ids > 0), model.judge(images, ids[:, :3], ids[:, :3] > 0)

    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)
    assert (padded - model.judge(images, ids, torch.ones_like(ids) > 0)).abs().max() > 1e-4


@torch.inference_mode()
def test_both_images_are_looked_at(tmp_path):
    model, tokenizer = small_nlvr2(tmp_path)
    images = torch.randn(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[tokenizer.enc, 7, tokenizer.end]])
    logits = model.judge(images, ids, ids > 0)

    for side in (0, 1):
        changed = images.clone()
        changed[:, side] *= -1
        assert (model.judge(changed, ids, ids > 0) - logits).abs().max() > 1e-4, side


def test_dropout_falls_on_what_both_images_add(tmp_path):
    attention = small_nlvr2(tmp_path)[0].text.blocks[0].cross_attn.train()
    attention.dropout.p = 1.0
    x, image = torch.randn(1, 3, 32), torch.randn(1, 17, 32)
    torch.testing.assert_close(attention(x, (image, image)), attention.norm(x))
