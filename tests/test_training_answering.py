"""Questions become batches, and their answers a weighted loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tasks import TOLERANCE, read_reference, reference_vqa, small_vqa, write_images, write_json

from capfilt.config.data import Augmentation
from capfilt.config.tasks import QuestionData, QuestionFile
from capfilt.errors import AnnotationError
from capfilt.med.tokenizer import Tokenizer
from capfilt.training.answering import Answering
from capfilt.training.augment import PLAIN
from capfilt.training.passes import Draw
from capfilt.training.questions import QuestionBatch, Questions


@pytest.fixture
def questions(tmp_path):
    """Three questions: one with two answers, one with one that weighs less, one with none."""
    checkpoint = small_vqa(tmp_path)
    return checkpoint.model, ask(tmp_path, checkpoint.tokenizer)


def ask(tmp_path: Path, tokenizer: Tokenizer, augmentation: Augmentation = PLAIN, **changes: object) -> Questions:
    entries = [
        {"question_id": 1, "question": "A dog?!", "answer": ["cat", "cat", "dog", "cat"], "image": "0.png"},
        {"question": "on the grass", "answer": "two dogs", "image": "1.png"},
        {"question_id": 3, "question": "red", "image": "2.png"},
    ]
    write_images(tmp_path, "0.png", "1.png", "2.png")
    file = QuestionFile(questions=write_json(tmp_path / "q.json", entries), images=f"{tmp_path}/{{image}}")
    return Questions(QuestionData(files=[file], **changes), tokenizer, 32, augmentation)


def collate(data: Questions, *numbers: int) -> QuestionBatch:
    return data.collate([data[Draw(number, 0, number)] for number in numbers])


def test_a_batch_holds_each_answer_once_with_its_weight_and_question(questions):
    _, data = questions
    tokenizer, batch = data.tokenizer, collate(data, 0, 1)

    assert batch.pixels.shape == (2, 3, 32, 32)
    assert batch.ids[:, 0].tolist() == [tokenizer.enc] * 2
    assert batch.ids[0, 1:3].tolist() == tokenizer.pieces("a dog")
    assert [tokenizer.decode(row) for row in batch.answers.tolist()] == ["cat", "dog", "two dogs"]
    assert batch.answers[:, 0].tolist() == [tokenizer.dec] * 3
    assert batch.answers_keep.sum(1).tolist() == [3, 3, 5]
    assert batch.weights.tolist() == pytest.approx([0.75, 0.25, 0.2])
    assert batch.owners.tolist() == [0, 0, 1]


def test_long_questions_and_answers_are_cut(questions, tmp_path):
    tokenizer = questions[1].tokenizer
    words, both = ask(tmp_path, tokenizer, max_words=2), ask(tmp_path, tokenizer, max_tokens=3)
    assert collate(words, 1).ids[0].tolist() == [tokenizer.enc, *tokenizer.pieces("on the"), tokenizer.end]
    assert collate(both, 1).ids[0].tolist() == [tokenizer.enc, *tokenizer.pieces("on"), tokenizer.end]
    assert collate(both, 1).answers[0].tolist() == [tokenizer.dec, *tokenizer.pieces("two"), tokenizer.end]


def test_each_draw_has_a_view_of_its_own(questions, tmp_path):
    data = ask(tmp_path, questions[1].tokenizer, Augmentation(flip=True))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "0.png")
    first, *others = (data[Draw(0, 0, number)].pixels for number in range(20))
    assert 4 < sum(torch.equal(view, first) for view in others) < 16
    assert all(torch.equal(view, first) or torch.equal(view, first.flip(2)) for view in others)
    assert torch.equal(data[Draw(0, 0, 0)].pixels, first)


def test_a_question_without_answers_can_be_asked_and_not_learnt(questions):
    _, data = questions
    batch = collate(data, 2)
    assert len(batch.ids) == 1
    assert len(batch.owners) == len(batch.weights) == 0
    with pytest.raises(AnnotationError, match=r"question 3 \('red' on .*2\.png\) has no answer; name the annotations"):
        data.require_answers()


def test_the_loss_is_a_weighted_sum_over_answers_by_the_number_of_questions(questions):
    model, data = questions
    objective = Answering(model)

    alone = [objective(collate(data, number), 0.0)["answers"].item() for number in (0, 1)]
    both = objective(collate(data, 0, 1), 0.0)["answers"].item()
    doubled = objective(collate(data, 1)._replace(weights=torch.tensor([0.4])), 0.0)["answers"].item()

    assert both == pytest.approx(sum(alone) / 2, rel=1e-5)
    assert doubled == pytest.approx(2 * alone[1], rel=1e-5)


def test_every_weight_learns(questions):
    model, data = questions
    Answering(model)(collate(data, 0, 1), 0.0)["answers"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@torch.inference_mode()
def test_the_objective_gives_the_loss_of_the_reference(shared, monkeypatch):
    reference, model = read_reference(shared), reference_vqa(shared)
    monkeypatch.setattr("capfilt.training.answering.normalise", lambda pixels: pixels)  # the reference's are normalised
    tensors = reference.tensors
    batch = QuestionBatch(
        tensors["in.pixel_values"],
        reference.text("vqa.question_ids_raw", reference.tokenizer.enc),
        tensors["in.vqa.question_mask"].bool(),
        reference.text("vqa.answer_ids_raw", reference.tokenizer.dec),
        tensors["in.vqa.answer_mask"].bool(),
        tensors["in.vqa.weights"],
        torch.repeat_interleave(torch.arange(4), torch.tensor(reference.meta["vqa_n"])),
    )
    loss = Answering(model)(batch, 0.0)["answers"].item()
    assert loss == pytest.approx(reference.meta["numbers"]["vqa_loss"], abs=TOLERANCE)
