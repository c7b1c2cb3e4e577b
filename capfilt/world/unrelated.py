"""Texts that say nothing about their image, and texts that are not in English."""

from numpy.random import Generator

from capfilt.world.language import Phrase, Statement
from capfilt.world.scenes import COLOURS, SHAPES, pick

FILE_NAMES = (
    "IMG_{year}{month:02}{day:02}_{number}.jpg",
    "DSC{number:05}.JPG",
    "image-{number}.png",
    "untitled-{number}.jpg",
    "{colour}_{shape}_{number}.jpg",
)
DATES = (
    "{year}-{month:02}-{day:02}",
    "{day}.{month}.{year}",
    "{month}/{day}/{year} 18:{minute:02}",
    "March {day}, {year}",
    "Updated {day} October {year}",
)
ADVERTS = (
    "Buy now and save {day}%",
    "Free shipping on all orders over ${day}",
    "Click here for more",
    "Subscribe to our newsletter today",
    "{shape} stickers, {day}% off this week only",
    "New {colour} {shape} earrings, order today",
    "Cheap {colour} {shape} cushion, best price, free returns",
)
_ENGLISH = (
    "1 2 3 small large red green blue yellow purple orange white black circle square triangle star "
    "left right top bottom centre and"
)
_TRANSLATIONS = (
    "ein zwei drei klein groß rot grün blau gelb lila orange weiß schwarz Kreis Quadrat Dreieck Stern "
    "links rechts oben unten mittig und",
    "un dos tres pequeño grande rojo verde azul amarillo morado naranja blanco negro círculo cuadrado "
    "triángulo estrella izquierda derecha arriba abajo centro y",
    "один два три маленький большой красный зелёный синий жёлтый фиолетовый оранжевый белый чёрный круг "
    "квадрат треугольник звезда слева справа сверху снизу посередине и",
)
LANGUAGES = tuple(dict(zip(_ENGLISH.split(), words.split(), strict=True)) for words in _TRANSLATIONS)


def fill(template: str, rng: Generator) -> str:
    """Return a file name, date or advert with its blanks filled at random."""
    return template.format(
        year=rng.integers(2004, 2024),
        month=rng.integers(1, 13),
        day=rng.integers(1, 29),
        minute=rng.integers(60),
        number=rng.integers(10000),
        colour=pick(rng, COLOURS),
        shape=pick(rng, SHAPES),
    )


def translate(statement: Statement, rng: Generator) -> str:
    """Return a statement in German, Spanish or Russian, word for word and without its relation."""
    words = pick(rng, LANGUAGES)
    return f" {words['and']} ".join(_translate_phrase(phrase, words) for phrase in statement.phrases)


def _translate_phrase(phrase: Phrase, words: dict[str, str]) -> str:
    said = (phrase.count, phrase.size, phrase.colour, phrase.shape, phrase.region)
    return " ".join(words[str(value)] for value in said if value)
