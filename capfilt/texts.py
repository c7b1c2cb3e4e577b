"""Texts: cleaning what a web page says of an image, and the normal form of captions for scoring and training."""

import html
import re
import unicodedata
from html.parser import HTMLParser

MAX_CHARACTERS = 10_000  # no caption is longer, and a parser of markup is not linear in hostile input
_INLINE = {"a", "abbr", "b", "big", "cite", "code", "em", "font", "i", "mark", "s", "small", "span", "strong"}
_INLINE |= {"strike", "sub", "sup", "tt", "u", "wbr"}  # may be inside a word; every other tag ends one
_UNSEEN = {"script", "style"}
_PUNCTUATION = re.compile(r'[.!"()*#:;~]')
_RUNS = re.compile(r"\s{2,}")
JOINERS = "\u200c\u200d"  # invisible, but Persian and Indic words need them, and emoji of several characters
# They count between two characters that are neither blanks nor Latin; elsewhere they only make equal words differ.
_STRAY = re.compile(rf"(?<![^\0-\u02ff\s{JOINERS}])[{JOINERS}]|[{JOINERS}](?![^\0-\u02ff\s{JOINERS}])")


def clean(raw: str) -> str:
    """Return a web text as a reader of the page would see it, on one line.

    Tags are removed and entities decoded, twice, since markup is often escaped inside an attribute. Control, bidi and
    zero-width characters are removed, except joiners where words and emoji need them; the tokenizer drops all of them.
    White space becomes single blanks. At most MAX_CHARACTERS are read. Bare < and & stay.
    """
    text = raw[:MAX_CHARACTERS]
    for _ in range(2):
        if "<" in text or "&" in text:
            text = _text_of_html(text)
    if not text.isprintable():  # it has white space other than blanks, or invisible characters
        text = _STRAY.sub("", "".join(map(_printable, text)))
    return " ".join(text.split())


def normalise(text: str, max_words: int = 30) -> str:
    """Return a caption as BLIP's training and scoring see it.

    Lower case; each of . ! " ( ) * # : ; ~ becomes a blank; runs of white space become one blank; the ends are
    stripped of line ends and blanks; at most max_words words stay. A single tab or line end inside is kept.

    Source:
        BLIP, arXiv 2201.12086, the caption preprocessing of its released code.
    """
    text = _PUNCTUATION.sub(" ", text.lower())
    text = _RUNS.sub(" ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def normalise_question(text: str, max_words: int = 50) -> str:
    """Return a question as BLIP's training and evaluation see it.

    Lower case; each of . ! " ( ) * # : ; ~ is removed, where a caption gets a blank; blanks at the end are stripped;
    at most max_words words stay.

    Source:
        BLIP, arXiv 2201.12086, the question preprocessing of its released code.
    """
    return " ".join(_PUNCTUATION.sub("", text.lower()).rstrip(" ").split(" ")[:max_words])


class _Visible(HTMLParser):
    """Collects the text of a piece of HTML."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.unseen = False

    def parse_html_declaration(self, i: int) -> int:
        """Treat <! as a comment up to the next >, as browsers do; Python's own method raises on <![x."""
        return self.parse_comment(i) if self.rawdata.startswith("<!--", i) else self.parse_bogus_comment(i)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen = tag in _UNSEEN
        self.parts.append("" if tag in _INLINE else " ")

    def handle_endtag(self, tag: str) -> None:
        self.unseen = False
        self.parts.append("" if tag in _INLINE else " ")

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.parts.append(data)


def _text_of_html(text: str) -> str:
    """Return the text of a piece of HTML."""
    # After the last > no tag can end, and searching for that end again and again would take quadratic time.
    markup, end, rest = text.rpartition(">")
    parser = _Visible()
    parser.feed(markup + end)
    parser.close()
    return "".join(parser.parts) + ("" if parser.unseen else html.unescape(rest))


def _printable(character: str) -> str:
    """Return a character, a blank for white space, or nothing for an invisible one (Unicode category C) without use."""
    if character.isspace():
        return " "
    if character in JOINERS:
        return character
    return "" if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") else character
