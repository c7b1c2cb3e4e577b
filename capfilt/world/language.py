"""The caption language of the demo world: statements, and how they are written and parsed.

    caption  = phrase [place] | phrase relation phrase | phrase [place] "and" phrase [place]
    phrase   = count [size] [colour] shape
    count    = "a" | "an" | "one" | "two" | "a pair of" | "three" | nothing, with a plural
    place    = "on the left" | "at the top" | "in the middle" | ...
    relation = "above" | "to the left of" | "next to" | ...

`parse` reads exactly what `write` can write: a text with one word out of place, such as "a orange star"
or "two star", is not a description.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from numpy.random import Generator

from capfilt.world.scenes import COLOURS, SHAPES, Colour, Region, Shape, Size, pick

Relation = Literal["left", "right", "above", "below", "beside"]

COUNT_WORDS: dict[int, tuple[str, ...]] = {1: ("a", "one"), 2: ("two", "a pair of"), 3: ("three",)}
SIZE_WORDS: dict[Size, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
PLURALS: dict[Shape, str] = {shape: f"{shape}s" for shape in SHAPES}
PLACE_WORDS: dict[Region, tuple[str, ...]] = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "centre": ("in the middle", "in the centre"),
}
RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
    "beside": ("next to", "beside"),
}


@dataclass(frozen=True, slots=True)
class Phrase:
    """What a caption says about one group; None for what it does not say."""

    count: int | None  # exactly that many; None: a plural without a number, two or more
    size: Size | None
    colour: Colour | None
    shape: Shape
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a caption says: one or two phrases, and the relation of the first group to the second."""

    phrases: tuple[Phrase, ...]
    relation: Relation | None = None


def write(statement: Statement, rng: Generator) -> str:
    """Return a statement in words, drawn from the ways to say it."""
    first, *others = (_write_phrase(phrase, rng) for phrase in statement.phrases)
    if not others:
        return first
    joint = pick(rng, RELATION_WORDS[statement.relation]) if statement.relation else "and"
    return f"{first} {joint} {others[0]}"


def _write_phrase(phrase: Phrase, rng: Generator) -> str:
    words = [pick(rng, SIZE_WORDS[phrase.size])] if phrase.size else []
    words += [phrase.colour] if phrase.colour else []
    words += [phrase.shape if phrase.count == 1 else PLURALS[phrase.shape]]
    if phrase.count:
        # The first word for a count is the common one; "one" and "a pair of" come one time in six.
        choices = COUNT_WORDS[phrase.count]
        count = choices[-1] if rng.random() < 1 / 6 else choices[0]
        words.insert(0, _article(words[0]) if count == "a" else count)
    if phrase.region:
        words.append(pick(rng, PLACE_WORDS[phrase.region]))
    return " ".join(words)


def _article(following: str) -> str:
    return "an" if following[0] in "aeiou" else "a"


def parse(text: str) -> Statement | None:
    """Return the statement of a text in lower case without punctuation, or None if it is not a description."""
    reader = _Reader(text.split())
    first = reader.phrase()
    if first is None:
        return None
    relation = reader.take(_RELATIONS)
    if relation is None:
        first = reader.place(first)
        if reader.done:
            return Statement((first,))
        if reader.take(_AND) is None:
            return None
    second = reader.phrase()
    if second is not None and relation is None:
        second = reader.place(second)
    return Statement((first, second), relation) if second is not None and reader.done else None


Value = TypeVar("Value")
Wordings = tuple[tuple[tuple[str, ...], Value], ...]


def _wordings(table: Mapping[Value, Iterable[str]]) -> Wordings[Value]:
    """Invert a table of values and their wordings, longest wording first."""
    pairs = [(tuple(words.split()), value) for value, wordings in table.items() for words in wordings]
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


_AND = _wordings({"and": ("and",)})
_COUNTS = _wordings({**COUNT_WORDS, 1: ("a", "an", "one")})
_SIZES = _wordings(SIZE_WORDS)
_COLOURS = _wordings({colour: (colour,) for colour in COLOURS})
_SINGULARS = _wordings({shape: (shape,) for shape in SHAPES})
_PLURALS = _wordings({shape: (PLURALS[shape],) for shape in SHAPES})
_PLACES = _wordings(PLACE_WORDS)
_RELATIONS = _wordings(RELATION_WORDS)


class _Reader:
    """Parses a text from left to right."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.position = 0

    @property
    def done(self) -> bool:
        return self.position == len(self.words)

    def take(self, wordings: Wordings[Value]) -> Value | None:
        """Consume the longest wording that comes next and return its value; None if none does."""
        for wording, value in wordings:
            end = self.position + len(wording)
            if tuple(self.words[self.position : end]) == wording:
                self.position = end
                return value
        return None

    def phrase(self) -> Phrase | None:
        start = self.position
        count = self.take(_COUNTS)
        after_count = self.position
        size = self.take(_SIZES)
        colour = self.take(_COLOURS)
        shape = self.take(_SINGULARS if count == 1 else _PLURALS)
        if shape is None:
            return None
        wrote_article = self.words[start] in ("a", "an") and count == 1
        if wrote_article and self.words[start] != _article(self.words[after_count]):
            return None
        return Phrase(count, size, colour, shape)

    def place(self, phrase: Phrase) -> Phrase:
        """Return the phrase with the place that comes next, if one does."""
        return replace(phrase, region=self.take(_PLACES))
