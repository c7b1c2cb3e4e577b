"""The VQA model against reference outputs of the original implementation, and what holds for any weights."""

import pytest
import torch
from tasks import TOLERANCE, read_reference, reference_vqa, small_vqa

from capfilt.med.losses import language_loss


@torch.inference_mode()
def test_the_loss_of_the_reference(shared):
    reference, model = read_reference(shared), reference_vqa(shared)
    questions, answers = (
        reference.tensors["in.vqa.question_mask"].bool(),
        reference.tensors["in.vqa.answer_mask"].bool(),
    )
    ids = reference.text("vqa.answer_ids_raw", reference.tokenizer.dec)
    owners = torch.repeat_interleave(torch.arange(4), torch.tensor(reference.meta["vqa_n"]))

    asked = model.ask(
        reference.tensors["in.pixel_values"], reference.text("vqa.question_ids_raw", reference.tokenizer.enc), questions
    )
    each = [(keys[owners], values[owners]) for keys, values in asked]
    losses = language_loss(model.decode(ids, each, questions[owners]), ids, answers, reduction="none").sum(1)

    loss = (reference.tensors["in.vqa.weights"] * losses).sum() / 4
    assert loss.item() == pytest.approx(reference.meta["numbers"]["vqa_loss"], abs=TOLERANCE)


@pytest.fixture
def asked(tmp_path):
    """A model, an image and a question of which three tokens are real."""
    model, tokenizer = small_vqa(tmp_path)
    ids = torch.tensor([[tokenizer.enc, 7, tokenizer.end, 0, 0]])
    return model, torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), ids, ids > 0


@torch.inference_mode()
def test_what_pads_a_question_changes_no_answer(asked):
    model, images, ids, keep = asked
    answer = torch.tensor([[model.config.text.vocabulary - 2, 6, 8]])

    padded = model.decode(answer, model.ask(images, ids, keep), keep)
    alone = model.decode(answer, model.ask(images, ids[:, :3], keep[:, :3]), keep[:, :3])
    attended = model.decode(answer, model.ask(images, ids, keep), torch.ones_like(keep))

    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-5)
    assert (padded - attended).abs().max() > 1e-3


@torch.inference_mode()
def test_answers_depend_on_image_and_question(asked):
    model, images, ids, keep = asked
    answer = torch.tensor([[model.config.text.vocabulary - 2, 6, 8]])
    other = ids.clone()
    other[0, 1] = 9

    logits = model.decode(answer, model.ask(images, ids, keep), keep)

    assert (logits - model.decode(answer, model.ask(-images, ids, keep), keep)).abs().max() > 1e-3
    assert (logits - model.decode(answer, model.ask(images, other, keep), keep)).abs().max() > 1e-3


def test_encoder_and_decoder_share_no_weights(asked):
    questions = {p.data_ptr() for p in asked[0].questions.parameters()}
    assert not questions & {p.data_ptr() for p in asked[0].answers.parameters()}
