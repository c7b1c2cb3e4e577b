"""VQA by ranking and by writing: the reference's choices, and what the figures say."""

from types import SimpleNamespace

import pytest
import torch
from tasks import read_reference, reference_vqa, small_vqa, write_images, write_json

from capfilt.config.tasks import QuestionData, QuestionFile, VQASettings
from capfilt.errors import AnnotationError
from capfilt.evaluation.vqa import evaluate_vqa, generate_answers, rank_answers, read_candidates
from capfilt.training.questions import Questions


@pytest.fixture(scope="module")
def asked(shared):
    """The reference, its model, and the keys and values of its questions."""
    reference, model = read_reference(shared), reference_vqa(shared)
    keep = reference.tensors["in.vqa.question_mask"].bool()
    with torch.inference_mode():
        ids = reference.text("vqa.question_ids_raw", reference.tokenizer.enc)
        return reference, model, model.ask(reference.tensors["in.pixel_values"], ids, keep), keep


@pytest.mark.parametrize("top_k", [1, 8, 24])
def test_the_reference_s_candidates_are_chosen(asked, top_k):
    reference, model, question, keep = asked
    candidates, real = reference.tensors["in.vqa.cand_ids"], reference.tensors["in.vqa.cand_mask"].bool()
    best = rank_answers(model, question, keep, candidates, real, top_k)
    assert best.tolist() == reference.tensors[f"out.vqa.rank_k{top_k}"].tolist()


def test_the_reference_s_answers_are_written(asked):
    reference, model, question, keep = asked
    written = generate_answers(model, question, keep, reference.tokenizer, VQASettings(method="generate"))
    assert written.tolist() == reference.tensors["out.vqa.generate_ids"].tolist()


def test_hidden_padding_makes_an_answer_independent_of_its_batch(asked):
    reference, model, question, keep = asked
    settings = VQASettings(method="generate", see_padding=False)
    together = generate_answers(model, question, keep, reference.tokenizer, settings)
    row = 2  # seven tokens of fourteen
    short = [(keys[row : row + 1, :, :7], values[row : row + 1, :, :7]) for keys, values in question]
    alone = generate_answers(model, short, keep[row : row + 1, :7], reference.tokenizer, settings)
    assert together[row].tolist() == alone[0].tolist()


def test_with_one_candidate_left_the_likeliest_first_token_wins(asked):
    reference, model, question, keep = asked
    candidates, real = reference.tensors["in.vqa.cand_ids"], reference.tensors["in.vqa.cand_mask"].bool()
    with torch.inference_mode():
        starts = torch.full((len(keep), 1), reference.tokenizer.dec)
        first = model.decode(starts, question, keep)[:, 0].softmax(dim=1)[:, candidates[:, 1]]
    best = rank_answers(model, question, keep, candidates, real, 1)
    assert torch.equal(first.gather(1, best[:, None]).squeeze(1), first.amax(dim=1))


def test_more_candidates_may_be_asked_for_than_there_are(asked):
    reference, model, question, keep = asked
    candidates, real = reference.tensors["in.vqa.cand_ids"], reference.tensors["in.vqa.cand_mask"].bool()
    everything = rank_answers(model, question, keep, candidates, real, len(candidates))
    assert torch.equal(rank_answers(model, question, keep, candidates, real, 999), everything)


def test_likelihood_is_smoothed_as_in_training():
    """A word that leaves the others no chance costs more than one that leaves them some, though it is likelier."""
    dec, sure, unsure, end = 0, 1, 2, 3
    logits = torch.zeros(8, 8)  # of the next token, by the last one
    logits[sure, end], logits[unsure, end] = 30.0, 3.0
    model = SimpleNamespace(decode=lambda ids, question, seen: logits[ids])

    found = rank_answers(
        model,
        question=[],
        seen=torch.ones(1, 1, dtype=torch.bool),
        candidates=torch.tensor([[dec, sure, end], [dec, unsure, end]]),
        keep=torch.ones(2, 3, dtype=torch.bool),
        top_k=2,
    )

    plain = logits.log_softmax(1)[[sure, unsure], end]
    smooth = 0.9 * plain + 0.1 * logits.log_softmax(1)[[sure, unsure]].mean(1)
    assert (plain.argmax(), smooth.argmax()) == (0, 1)
    assert found.tolist() == [1]


@pytest.fixture
def small(tmp_path):
    """A model and five questions, the last of which nobody has answered."""
    write_images(tmp_path, *(f"{number}.png" for number in range(5)))
    entries = [
        {
            "question_id": number,
            "question": "a dog" + " on the grass" * number,
            "image": f"{number}.png",
            "answer": ["dog"] * 10,
        }
        for number in range(5)
    ]
    del entries[4]["answer"]
    file = QuestionFile(questions=write_json(tmp_path / "q.json", entries), images=f"{tmp_path}/{{image}}")
    model, tokenizer = small_vqa(tmp_path)
    return model, Questions(QuestionData(files=[file]), tokenizer, image_size=32)


@pytest.mark.parametrize("method", ["rank", "generate"])
def test_answers_do_not_depend_on_the_batch_size(small, method):
    candidates = ["dog", "cat", "two dogs", "red"] if method == "rank" else []
    found = [
        evaluate_vqa(*small, candidates, VQASettings(method="generate", see_padding=False, batch_size=size))
        for size in (1, 2, 5)
    ]
    assert found[0] == found[1] == found[2]
    assert [row["question_id"] for row in found[0][1]] == [0, 1, 2, 3, 4]


def test_candidates_become_tokens_once_however_many_batches_there_are(small, monkeypatch):
    model, questions = small
    encode, encoded = questions.tokenizer.encode_all, []
    monkeypatch.setattr(
        questions.tokenizer, "encode_all", lambda texts, *rest: encoded.append(texts) or encode(texts, *rest)
    )
    answers = ["dog", "two dogs"]
    evaluate_vqa(model, questions, answers, VQASettings(candidates="answers.json", batch_size=1))
    assert encoded.count(answers) == 1


def test_the_accuracy_is_that_of_the_questions_with_answers(small):
    settings = VQASettings(candidates="answers.json")
    (right, answers), (wrong, _) = (evaluate_vqa(*small, [text], settings) for text in ("dog", "cat"))
    assert (right["questions"], right["accuracy"], wrong["accuracy"]) == (5, 100.0, 0.0)
    assert answers[4] == {"question_id": 4, "answer": "dog"}


def test_candidates_are_a_list_of_texts(tmp_path):
    with pytest.raises(AnnotationError, match=r"a\.json: is not a JSON list of answers"):
        read_candidates(VQASettings(candidates=write_json(tmp_path / "a.json", {"dog": 1})))
