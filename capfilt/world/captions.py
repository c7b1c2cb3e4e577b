"""True captions of a scene, as people would write them, no two alike."""

from numpy.random import Generator

from capfilt.world.facts import relations
from capfilt.world.language import Phrase, Statement, write
from capfilt.world.scenes import Group, Scene, pick

MIN_WORDS, MAX_WORDS = 3, 14


def true_captions(scene: Scene, rng: Generator, count: int) -> list[str]:
    """Return `count` different true captions of 3 to 14 words that can follow "a picture of"."""
    captions: dict[str, None] = {}  # keeps the order in which they were drawn
    while len(captions) < count:
        caption = word(true_statement(scene, rng), rng)
        if caption:
            captions[caption] = None
    return list(captions)


def word(statement: Statement, rng: Generator) -> str | None:
    """Return a statement in words, or None if they are too few or too many for a caption."""
    text = write(statement, rng)
    return text if MIN_WORDS <= len(text.split()) <= MAX_WORDS else None


def true_statement(scene: Scene, rng: Generator) -> Statement:
    """Draw a true statement about the scene, most often about all of it, as people describe a whole image."""
    if len(scene.groups) == 1 or rng.random() < 0.15:
        return Statement((_describe(pick(rng, scene.groups), rng, place_chance=0.5),))
    first, second = (scene.groups[index] for index in rng.permutation(2))
    if rng.random() < 0.6:
        relation = pick(rng, relations(first, second))
        return Statement((_describe(first, rng), _describe(second, rng)), relation)
    place_chance = 1.0 if rng.random() < 0.5 else 0.0  # both places are named or none
    return Statement((_describe(first, rng, place_chance), _describe(second, rng, place_chance)))


def _describe(group: Group, rng: Generator, place_chance: float = 0.0) -> Phrase:
    chances = rng.random(4)
    return Phrase(
        count=None if group.count > 1 and chances[0] < 0.1 else group.count,
        size=group.size if chances[1] < 0.5 else None,
        colour=group.colour if chances[2] < 0.9 else None,
        shape=group.shape,
        region=group.region if chances[3] < place_chance else None,
    )
