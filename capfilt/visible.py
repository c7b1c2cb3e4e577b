"""Web text made safe to look at: what a reader cannot see, or what would act, becomes a visible stand-in.

A text of the web may hold escape sequences that command a terminal, and direction overrides that show other words
than are there. `texts.clean` drops such characters before scoring; here a person wants to see that they are there.
"""

import re
import unicodedata

_JOINERS = "\u200c\u200d"  # shape Persian and Indic words and emoji, and move nothing
_ARROWS = {"\n": "↵", "\t": "⇥"}
_PLAIN = re.compile(r"[ -~]*")
_MARKS = 3  # combining marks on one letter; more of them reach into the lines around


def visible(text: str) -> str:
    """Return a text on one line in which every character shows and none acts.

    Characters of the categories Cc, Cf, Co, Cs, Zl and Zp, escapes and direction controls among them, become their
    number, as in <U+202E>, and line ends and tabs an arrow. Marks that are piled on one letter are cut after the
    third. What is left may run from right to left, so a page must isolate it.
    """
    if _PLAIN.fullmatch(text):
        return text
    parts: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= _MARKS:
            parts.append(_stand_in(character) if category in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") else character)
    return "".join(parts)


def shorten(text: str, limit: int) -> tuple[str, str]:
    """Return a text as its first `limit` characters, cut between words where one ends near, and the rest."""
    if len(text) <= limit:
        return text, ""
    space = text.rfind(" ", limit - limit // 5, limit)
    cut = limit if space < 0 else space
    return text[:cut], text[cut:]


def _stand_in(character: str) -> str:
    if character in _JOINERS:
        return character
    return _ARROWS.get(character) or f"<U+{ord(character):04X}>"
