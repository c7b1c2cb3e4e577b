"""Questions on images, read from annotation files as published.

    VQAv2           {"questions": [{"question_id", "image_id", "question"}]}, and the ten answers of each in a second
                    file, {"annotations": [{"question_id", "answers": [{"answer"}], "answer_type"}]}
    Visual Genome   [{"qas": [{"qa_id", "image_id", "question", "answer"}]}], one answer each
    the original    [{"image", "question", "answer", "question_id"}], ten answers, one (Visual Genome) or none (test)

The layout is recognised by the keys of the first entry.

Shapes: B questions, A answers of them, L question tokens, T answer tokens, S side of the square image.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from capfilt.annotations import Entry, field
from capfilt.config.data import Augmentation
from capfilt.config.tasks import QuestionData, QuestionFile
from capfilt.errors import AnnotationError
from capfilt.med.tokenizer import Tokenizer
from capfilt.texts import normalise_question
from capfilt.training.augment import PLAIN, Views
from capfilt.training.entries import image_path, placed, read_entries, read_pixels
from capfilt.training.passes import Draw


class Question(NamedTuple):
    """A question on an image, with what people answered."""

    number: int  # its id in the file
    image: str  # path or URL
    text: str
    answers: tuple[str, ...]  # as given, one for each person; empty if unknown
    answer_type: str = ""  # VQAv2's: yes/no, number, other

    def weights(self, single: float) -> dict[str, float]:
        """Return the share of people who gave each answer; `single` if only one person answered."""
        if len(self.answers) == 1:
            return {self.answers[0]: single}
        return {answer: votes / len(self.answers) for answer, votes in Counter(self.answers).items()}


class QuestionBatch(NamedTuple):
    """Questions with their answers; those of one question are neighbours."""

    pixels: Tensor  # uint8 (B, 3, S, S)
    ids: Tensor  # int64 (B, L): [ENC] in front, [SEP] behind, [PAD] to the longest
    keep: Tensor  # bool (B, L), True for real tokens
    answers: Tensor  # int64 (A, T): [DEC] in front, [SEP] behind, [PAD] to the longest
    answers_keep: Tensor  # bool (A, T)
    weights: Tensor  # float32 (A,)
    owners: Tensor  # int64 (A,): row of the question that an answer belongs to


class Asked(NamedTuple):
    """One question of a batch."""

    pixels: Tensor  # uint8 (3, S, S)
    ids: list[int]
    answers: list[tuple[list[int], float]]  # ids and weight


class Questions(Dataset[Asked]):
    """The questions of some annotation files; their images are read on access."""

    def __init__(
        self, settings: QuestionData, tokenizer: Tokenizer, image_size: int, augmentation: Augmentation = PLAIN
    ) -> None:
        self.settings, self.tokenizer, self.views = settings, tokenizer, Views(image_size, augmentation)
        self.questions: list[Question] = read_questions(settings)

    def require_answers(self) -> None:
        """Raise AnnotationError if a question has no answer to train on."""
        for question in self.questions:
            if not question.answers:
                raise AnnotationError(
                    f"question {question.number} ({question.text!r} on {question.image}) has no answer; "
                    "name the annotations of its file"
                )

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, draw: Draw) -> Asked:
        question, settings, tokenizer = self.questions[draw.sample], self.settings, self.tokenizer
        kept = self.views.keep(read_pixels(question.image, settings.limits))
        pixels = self.views.draw(kept, draw.generator())  # (3, S, S)
        text = normalise_question(question.text, settings.max_words)
        ids = tokenizer.encode(text, tokenizer.enc, settings.max_tokens)
        weights = question.weights(settings.single_answer_weight)
        longest = settings.max_tokens
        answers = [(tokenizer.encode(text, tokenizer.dec, longest), weight) for text, weight in weights.items()]
        return Asked(pixels, ids, answers)

    def content(self) -> list[Question]:
        """Return all questions."""
        return self.questions

    def collate(self, items: list[Asked]) -> QuestionBatch:
        """Return questions as a batch."""
        ids, keep = self.tokenizer.batch([item.ids for item in items])  # (B, L), (B, L)
        answers = [(row, *answer) for row, item in enumerate(items) for answer in item.answers]
        written = self.tokenizer.batch([found for _, found, _ in answers] or [[]])  # (A, T), (A, T)
        return QuestionBatch(
            torch.stack([item.pixels for item in items]),
            ids,
            keep,
            *written,
            torch.tensor([weight for _, _, weight in answers]),
            torch.tensor([row for row, _, _ in answers], dtype=torch.long),
        )


def read_questions(data: QuestionData) -> list[Question]:
    """Return the questions of all files, in their order.

    Raises:
        AnnotationError: a file is missing, is not JSON, or has another layout; the message names the entry.
    """
    found = [question for file in data.files for question in _questions(file)]
    if not found:
        raise AnnotationError(f"{data.files[0].questions}: holds no question; fetch it again")
    return found


def _questions(file: QuestionFile) -> Iterator[Question]:
    entries = read_entries(file.questions, "questions")
    first = entries[0][0] if entries else {}
    if "qas" in first:
        for entry, where in entries:
            nested = placed(field(entry, "qas", list, where), where)
            yield from (_own_answers(item, file, "qa_id", place) for item, place in nested)
    elif "image" in first:
        yield from (_own_answers(entry, file, "question_id", where) for entry, where in entries)
    else:
        notes = _notes(file.annotations)
        yield from (_with_note(entry, file, notes, where) for entry, where in entries)


def _notes(file: str | None) -> dict[object, tuple[Entry, str]]:
    """Return VQAv2's annotations by question_id, each with its place in the file."""
    entries = read_entries(file, "annotations") if file else []
    return {field(note, "question_id", int, where): (note, where) for note, where in entries}


def _with_note(entry: Entry, file: QuestionFile, notes: dict[object, tuple[Entry, str]], where: str) -> Question:
    """Return a question of VQAv2 with the answers of its annotation, if annotations are given."""
    number = cast(int, field(entry, "question_id", int, where))
    if file.annotations and number not in notes:
        raise AnnotationError(
            f"{file.annotations}: has no answers to question {number}; give the annotations of the same split"
        )
    note, place = notes.get(number, ({"answers": []}, where))
    answers = placed(field(note, "answers", list, place), place)
    return Question(
        number,
        image_path(file.images, entry, where),
        str(field(entry, "question", str, where)),
        tuple(str(field(answer, "answer", str, spot)) for answer, spot in answers),
        str(note.get("answer_type", "")),
    )


def _own_answers(entry: Entry, file: QuestionFile, key: str, where: str) -> Question:
    """Return a question whose entry holds its answer or a list of answers."""
    given = entry.get("answer", [])
    answers = [text for text in (given if isinstance(given, list) else [given]) if isinstance(text, str)]
    if not isinstance(given, list | str) or (isinstance(given, list) and len(answers) != len(given)):
        raise AnnotationError(f"{where}: answer is neither a text nor a list of texts; give a file as it was published")
    number = cast(int, field(entry, key, int, where)) if key in entry else 0
    text = str(field(entry, "question", str, where))
    if key == "qa_id":  # Visual Genome's answers are sentences
        answers = [text.removesuffix(".") for text in answers]
    return Question(number, image_path(file.images, entry, where), text, tuple(answers))
