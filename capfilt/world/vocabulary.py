"""The words of the demo world, for a tokenizer that knows all of them."""

import re
import unicodedata
from collections.abc import Iterator

from capfilt.world.language import COUNT_WORDS, PLACE_WORDS, PLURALS, RELATION_WORDS, SIZE_WORDS
from capfilt.world.scenes import COLOURS, SHAPES
from capfilt.world.unrelated import ADVERTS, DATES, FILE_NAMES, LANGUAGES

PROMPT_WORDS = ("picture",)
PRINTABLE = "".join(chr(code) for code in range(33, 127) if not chr(code).isupper())


def vocabulary() -> list[str]:
    """Return the word pieces of all texts of the world, sorted: words, and characters alone and inside a word.

    All are in lower case, with and without accents, as BERT's normaliser may strip them. The special
    tokens are not among them.
    """
    words = {form for text in _texts() for word in _split(text) for form in (word, _without_accents(word))}
    characters = {character for word in words for character in word} | set(PRINTABLE)
    return sorted(words | characters | {f"##{character}" for character in characters})


def _texts() -> Iterator[str]:
    for table in (COUNT_WORDS, SIZE_WORDS, PLACE_WORDS, RELATION_WORDS):
        for wordings in table.values():
            yield from wordings
    yield from ("an", "and", *COLOURS, *SHAPES, *PLURALS.values(), *PROMPT_WORDS)
    for template in (*FILE_NAMES, *DATES, *ADVERTS):
        yield re.sub(r"{[^}]*}", " ", template)
    for language in LANGUAGES:
        yield from language.values()


def _split(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())


def _without_accents(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c))
