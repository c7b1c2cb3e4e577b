"""Partial truths: true statements in which exactly one claim is made wrong."""

from dataclasses import replace
from typing import Literal, get_args

from numpy.random import Generator

from capfilt.world.captions import true_statement
from capfilt.world.facts import holds
from capfilt.world.language import Phrase, Relation, Statement
from capfilt.world.scenes import COLOURS, MAX_COUNT, REGIONS, SHAPES, SIZES, Scene, pick

Attribute = Literal["colour", "shape", "count", "size", "position"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)

_RELATIONS: tuple[Relation, ...] = get_args(Relation)


def false_statement(scene: Scene, attribute: Attribute, rng: Generator) -> Statement:
    """Draw a true statement and make one of its claims about the attribute wrong."""
    while True:
        statement = _change(true_statement(scene, rng), attribute, rng)
        if statement and not holds(statement, scene):
            return statement


def _change(statement: Statement, attribute: Attribute, rng: Generator) -> Statement | None:
    """Replace the value of the attribute; None if the statement does not name it."""
    if attribute == "position" and statement.relation:
        return replace(statement, relation=pick(rng, _RELATIONS))
    phrases = list(statement.phrases)
    index = int(rng.integers(len(phrases)))
    changed = _change_phrase(phrases[index], attribute, rng)
    if changed is None:
        return None
    phrases[index] = changed
    return replace(statement, phrases=tuple(phrases))


def _change_phrase(phrase: Phrase, attribute: Attribute, rng: Generator) -> Phrase | None:
    if attribute == "colour" and phrase.colour:
        return replace(phrase, colour=pick(rng, COLOURS))
    if attribute == "shape":
        return replace(phrase, shape=pick(rng, SHAPES))
    if attribute == "count":
        return replace(phrase, count=int(rng.integers(1, MAX_COUNT + 1)))
    if attribute == "size" and phrase.size:
        return replace(phrase, size=pick(rng, SIZES))
    if attribute == "position" and phrase.region:
        return replace(phrase, region=pick(rng, REGIONS))
    return None
