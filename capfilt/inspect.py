"""Samples on a terminal: the image in half blocks, each text with its scores, green if kept and red if rejected.

Texts go through reveal, so that no escape sequence of a web page reaches the terminal.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from rich.text import Text

from capfilt.config import ImageLimits
from capfilt.display import four_places, reveal, shorten
from capfilt.errors import ImageError
from capfilt.images import decode
from capfilt.ledger.quarantine import QUARANTINED
from capfilt.query.cards import Card, CardText, Place
from capfilt.query.images import NOT_SHOWN

COLUMNS, LINES = 32, 12
"""Size of an image in cells of a terminal; a cell shows two pixels, one above the other."""

SHOWN_CHARACTERS = 500  # characters of a text

_TEXT = ("source", "text", "itm", "itc", "kept", "reason")
_STYLES = {True: "green", False: "red"}


def as_json(cards: Sequence[Card]) -> Iterator[str]:
    """Yield a line of ASCII JSON for each sample, with its texts exactly as they came."""
    for card in cards:
        texts = [{name: getattr(text, name) for name in _TEXT} for text in card.texts]
        yield json.dumps(asdict(card) | {"texts": texts}) + "\n"


def as_plain(cards: Sequence[Card]) -> Iterator[str]:
    """Yield the lines of each sample without colours or images, one line for each text."""
    for card in cards:
        lines = (f"  {_verdict(text)}  {_words(text.text)}" for text in card.texts)
        yield "\n".join([_title(card), *([f"  {_failure(card)}"] if card.status != "ok" else []), *lines]) + "\n\n"


def as_colours(
    console: Console, cards: Sequence[Card], images: Mapping[Place, bytes | str], limits: ImageLimits
) -> Iterator[str]:
    """Yield each sample as a console shows it."""
    for card in cards:
        with console.capture() as capture:
            image = thumbnail(images[card.place], limits)
            if image.plain == reveal(card.error):
                image = Text(NOT_SHOWN, style="dim")
            console.print(_drawn(card, image))
            console.print()
        yield capture.get()


def thumbnail(image: bytes | str, limits: ImageLimits) -> Text:
    """Return an image in half blocks, or the reason why there is none."""
    if isinstance(image, str):
        return Text(image, style="dim")
    try:
        small = Image.fromarray(decode(image, limits, 2 * LINES).pixels)
    except ImageError as error:
        return Text(reveal(str(error)), style="dim")
    small.thumbnail((COLUMNS, 2 * LINES), Image.Resampling.LANCZOS)
    rows = np.asarray(small)  # (H, W, 3)
    text = Text(no_wrap=True, end="")
    for y in range(0, len(rows), 2):
        for upper, lower in zip(rows[y], rows[min(y + 1, len(rows) - 1)], strict=True):
            text.append("▀", f"#{upper.tobytes().hex()} on #{lower.tobytes().hex()}")
        text.append("\n")
    text.right_crop(1)
    return text


def _drawn(card: Card, image: Text) -> Table:
    said = Text().append(_title(card), "bold")
    if card.status != "ok":
        said.append(f"\n{_failure(card)}", "yellow")
    for text in card.texts:
        said.append(f"\n\n{_verdict(text)}\n", f"bold {_STYLES[text.kept]}")
        said.append(_words(text.text), _STYLES[text.kept])
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=COLUMNS)
    grid.add_column()
    grid.add_row(image, said)
    return grid


def _title(card: Card) -> str:
    url = f"  {reveal(card.url, 120)}" if card.url else ""
    return f"{reveal(card.key)}  {card.shard}:{card.position}{url}"


def _failure(card: Card) -> str:
    remedy = "; to try it again, bootstrap with --retry-quarantined" if card.status == QUARANTINED else ""
    return f"! {card.status}: {reveal(card.error, SHOWN_CHARACTERS)}{remedy}"


def _verdict(text: CardText) -> str:
    score = four_places(text.itm)
    return f"{'✓' if text.kept else '✗'} {text.source:<9}  {score:>6}  {'kept' if text.kept else text.reason:<9}"


def _words(text: str) -> str:
    """Return a text on one line that is safe on any terminal, with a note of how much of it is left out."""
    head, rest = shorten(text, SHOWN_CHARACTERS)
    return reveal(head) + (f" … {len(rest):,} more characters" if rest else "")
