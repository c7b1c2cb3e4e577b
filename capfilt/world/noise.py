"""The web texts of the demo world: they describe their image, nearly do, or do not.

The kind of a text says how it was made, not whether it is true: another image's caption may happen
to fit. The label is always `facts.is_true`. Texts in other languages count as wrong even if they
describe the image, since the paper's models read only English; they are translated word for word.
"""

from typing import Literal, NamedTuple, Self, get_args

from numpy.random import Generator
from pydantic import Field, model_validator

from capfilt.config.schema import Config
from capfilt.world.captions import true_captions, true_statement, word
from capfilt.world.corruption import Attribute, false_statement
from capfilt.world.scenes import Scene, pick
from capfilt.world.unrelated import ADVERTS, DATES, FILE_NAMES, fill, translate

Kind = Literal[
    "true",
    "html",
    "other_image",
    "partial_colour",
    "partial_shape",
    "partial_count",
    "partial_size",
    "partial_position",
    "file_name",
    "date",
    "advert",
    "empty",
    "foreign",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
MARKUP = (
    "<b>{}</b>",
    "<p>{}</p>",
    "{}<br/>",
    "<span class=caption>{}</span>",
    '<a href="https://world.example/album?page=2&amp;sort=new">{}</a>',
    "&nbsp;{}&nbsp;",
)

_WRONG: dict[Kind, Attribute] = {
    "partial_colour": "colour",
    "partial_shape": "shape",
    "partial_count": "count",
    "partial_size": "size",
    "partial_position": "position",
}


class NoiseRates(Config):
    """The share of each kind of web text; together they are 1."""

    true: float = Field(0.45, ge=0, le=1, description="a true caption")
    html: float = Field(0.10, ge=0, le=1, description="a true caption in markup")
    other_image: float = Field(0.20, ge=0, le=1, description="a true caption of another image")
    partial_colour: float = Field(0.03, ge=0, le=1, description="a caption with one wrong colour")
    partial_shape: float = Field(0.03, ge=0, le=1, description="a caption with one wrong shape")
    partial_count: float = Field(0.03, ge=0, le=1, description="a caption with one wrong count")
    partial_size: float = Field(0.01, ge=0, le=1, description="a caption with one wrong size")
    partial_position: float = Field(0.03, ge=0, le=1, description="a caption with one wrong place or relation")
    file_name: float = Field(0.03, ge=0, le=1, description="a camera's or a web page's file name")
    date: float = Field(0.02, ge=0, le=1, description="a date")
    advert: float = Field(0.03, ge=0, le=1, description="an advert; some name a colour and a shape")
    empty: float = Field(0.01, ge=0, le=1, description="no text")
    foreign: float = Field(0.03, ge=0, le=1, description="a description in German, Spanish or Russian")

    @model_validator(mode="after")
    def _shares_of_one(self) -> Self:
        total = sum(self.model_dump().values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of all kinds add up to {total:.6g}; they must add up to 1")
        return self


class WebText(NamedTuple):
    """The text of a web image, and how it was made."""

    text: str
    kind: Kind


def web_text(scene: Scene, other: Scene, rng: Generator, rates: NoiseRates) -> WebText:
    """Draw the web text of a scene; `other` is the scene whose caption it may have by mistake."""
    kind = KINDS[int(rng.choice(len(KINDS), p=[getattr(rates, kind) for kind in KINDS]))]
    return WebText(_write(kind, scene, other, rng), kind)


def _write(kind: Kind, scene: Scene, other: Scene, rng: Generator) -> str:
    match kind:
        case "true":
            return _typed(_caption(scene, rng), rng)
        case "html":
            return pick(rng, MARKUP).format(_typed(_caption(scene, rng), rng))
        case "other_image":
            return _typed(_caption(other, rng), rng)
        case "file_name":
            return fill(pick(rng, FILE_NAMES), rng)
        case "date":
            return fill(pick(rng, DATES), rng)
        case "advert":
            return fill(pick(rng, ADVERTS), rng)
        case "empty":
            return ""
        case "foreign":
            return translate(true_statement(scene, rng), rng)
        case _:
            return _typed(_partial_truth(scene, _WRONG[kind], rng), rng)


def _caption(scene: Scene, rng: Generator) -> str:
    return true_captions(scene, rng, 1)[0]


def _partial_truth(scene: Scene, attribute: Attribute, rng: Generator) -> str:
    while True:
        if text := word(false_statement(scene, attribute, rng), rng):
            return text


def _typed(caption: str, rng: Generator) -> str:
    """Return a caption as people type it: some with a capital letter, some with a full stop."""
    if rng.random() < 0.3:
        caption = caption[0].upper() + caption[1:]
    return caption + "." if rng.random() < 0.2 else caption
