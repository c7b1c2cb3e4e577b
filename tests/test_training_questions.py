"""VQAv2, Visual Genome and the original's files are read as they were published."""

import pytest
from tasks import write_json

from capfilt.config.tasks import QuestionData, QuestionFile
from capfilt.errors import AnnotationError
from capfilt.training.questions import Question, read_questions

ASKED = {"questions": [{"image_id": 9, "question": "What is it?", "question_id": 90}], "data_type": "mscoco"}
TEN = ["cat"] * 7 + ["dog"] * 3
ANSWERED = {
    "annotations": [
        {
            "question_id": 90,
            "image_id": 9,
            "answer_type": "other",
            "answers": [{"answer": text, "answer_confidence": "yes", "answer_id": 1} for text in TEN],
        }
    ]
}


def read(questions: str, annotations: str | None = None, images: str = "{image_id:012d}.jpg") -> list[Question]:
    return read_questions(
        QuestionData(files=[QuestionFile(questions=questions, annotations=annotations, images=images)])
    )


def test_vqa_v2(tmp_path):
    files = write_json(tmp_path / "q.json", ASKED), write_json(tmp_path / "a.json", ANSWERED)
    assert read(*files) == [Question(90, "000000000009.jpg", "What is it?", tuple(TEN), "other")]


def test_vqa_v2_without_answers(tmp_path):
    (question,) = read(write_json(tmp_path / "q.json", ASKED))
    assert question.answers == ()


def test_visual_genome(tmp_path):
    pairs = [{"qa_id": 5, "image_id": 1, "question": "Where?", "answer": "On the road.", "a_objects": []}]
    found = read(write_json(tmp_path / "vg.json", [{"id": 1, "qas": pairs}]), images="VG_100K/{image_id}.jpg")
    assert found == [Question(5, "VG_100K/1.jpg", "Where?", ("On the road",))]


def test_the_originals_own_files(tmp_path):
    entries = [
        {"question_id": 1, "question": "a?", "answer": TEN, "image": "val2014/x.jpg", "dataset": "vqa"},
        {"question": "b?", "answer": "tree", "image": "image/2.jpg", "dataset": "vg"},
        {"question_id": 3, "question": "c?", "image": "test2015/y.jpg", "dataset": "vqa"},
    ]
    found = read(write_json(tmp_path / "vqa_train.json", entries), images="data/{image}")
    assert [(q.number, q.image, q.answers) for q in found] == [
        (1, "data/val2014/x.jpg", tuple(TEN)),
        (0, "data/image/2.jpg", ("tree",)),
        (3, "data/test2015/y.jpg", ()),
    ]


def test_an_answer_weighs_the_share_of_its_votes_and_a_lonely_one_less():
    assert Question(1, "", "", tuple(TEN)).weights(0.2) == {"cat": 0.7, "dog": 0.3}
    assert Question(1, "", "", ("tree",)).weights(0.2) == {"tree": 0.2}


def test_files_of_two_splits_are_refused(tmp_path):
    other = {"annotations": [{**ANSWERED["annotations"][0], "question_id": 91}]}
    with pytest.raises(
        AnnotationError, match=r"a\.json: has no answers to question 90; give the annotations of the same split"
    ):
        read(write_json(tmp_path / "q.json", ASKED), write_json(tmp_path / "a.json", other))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"questions": [{"question_id": 1, "image_id": 2}]}, r"entry 1: question is missing"),
        ([{"question": "a?", "image": "b.jpg", "answer": 3}], r"entry 1: answer is neither a text nor a list of texts"),
        ([{"question": "a?", "image": "b.jpg", "answer": ["b", 3]}], r"entry 1: answer is neither a text nor a list"),
        ({"questions": []}, r"q\.json: holds no question"),
        ([], r"q\.json: holds no question"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, value, message):
    with pytest.raises(AnnotationError, match=message):
        read(write_json(tmp_path / "q.json", value), images="x")
