"""Questions on images, read from annotation files as they were published.

    VQAv2           {"questions": [{"question_id", "image_id", "question"}]}, and the ten answers of each in a second
                    file, {"annotations": [{"question_id", "answers": [{"answer"}], "answer_type"}]}
    Visual Genome   [{"qas": [{"qa_id", "image_id", "question", "answer"}]}], one answer each
    the original    [{"image", "question", "answer", "question_id"}], ten answers, one (Visual Genome) or none (test)

Which one it is shows in the file itself.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, cast

from capfilt.config.tasks import QuestionData, QuestionFile
from capfilt.errors import AnnotationError
from capfilt.evaluation.annotations import Entry, field
from capfilt.training.entries import image_path, placed, read_entries


class Question(NamedTuple):
    """A question on an image, with what people answered."""

    number: int  # its id in the file
    image: str  # path or URL
    text: str
    answers: tuple[str, ...]  # as given, one for each person; empty where nobody tells
    answer_type: str = ""  # VQAv2's: yes/no, number, other

    def weights(self, single: float) -> dict[str, float]:
        """Return the share of the people who gave each answer; `single` where one person alone answered."""
        if len(self.answers) == 1:
            return {self.answers[0]: single}
        return {answer: votes / len(self.answers) for answer, votes in Counter(self.answers).items()}


def read_questions(data: QuestionData) -> list[Question]:
    """Return the questions of all files, in their order.

    Raises:
        AnnotationError: a file is not there, is no JSON, or has another layout; the message names the entry.
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
    """Return VQAv2's annotations by the number of their question, each with its place."""
    entries = read_entries(file, "annotations") if file else []
    return {field(note, "question_id", int, where): (note, where) for note, where in entries}


def _with_note(entry: Entry, file: QuestionFile, notes: dict[object, tuple[Entry, str]], where: str) -> Question:
    """Return a question of VQAv2 with the answers of its annotation, where annotations are given."""
    number = cast(int, field(entry, "question_id", int, where))
    if file.annotations and number not in notes:
        raise AnnotationError(f"{file.annotations}: has no answers to question {number}; give the file of its split")
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
    """Return a question whose entry holds its answers, one or a list."""
    given = entry.get("answer", [])
    answers = [text for text in (given if isinstance(given, list) else [given]) if isinstance(text, str)]
    if not isinstance(given, list | str) or (isinstance(given, list) and len(answers) != len(given)):
        raise AnnotationError(f"{where}: answer is neither a text nor a list of texts; give a file as it was published")
    number = cast(int, field(entry, key, int, where)) if key in entry else 0
    text = str(field(entry, "question", str, where))
    if key == "qa_id":  # Visual Genome's answers are sentences
        answers = [text.removesuffix(".") for text in answers]
    return Question(number, image_path(file.images, entry, where), text, tuple(answers))
