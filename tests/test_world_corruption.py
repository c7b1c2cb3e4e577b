from collections import Counter
from dataclasses import asdict

import pytest

from capfilt.world.corruption import ATTRIBUTES, false_statement
from capfilt.world.facts import holds, is_true
from capfilt.world.language import Statement, parse, write
from capfilt.world.scenes import Scene, scene_at, stream

FIELDS = {"colour": "colour", "shape": "shape", "count": "count", "size": "size", "position": "region"}


def wrong(index: int, attribute: str) -> tuple[Scene, Statement, str]:
    scene, rng = scene_at(0, "web", index), stream(0, "web", index, "partial")
    statement = false_statement(scene, attribute, rng)
    return scene, statement, write(statement, rng)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_partial_truth_is_well_formed_and_false(attribute):
    for index in range(300):
        scene, statement, text = wrong(index, attribute)
        assert parse(text) == statement
        assert not is_true(text, scene), text


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_only_the_named_attribute_is_wrong(attribute):
    """One claim can be put right so that the statement holds."""
    for index in range(300):
        scene, statement, text = wrong(index, attribute)
        assert any(holds(mended, scene) for mended in mend(statement, attribute, scene)), text


def mend(statement: Statement, attribute: str, scene: Scene) -> list[Statement]:
    """Return the statement with one claim about the attribute taken from the scene, in every way."""
    field = FIELDS[attribute]
    mended = [
        Statement(
            tuple(put(phrase, field, group) if phrase is wrong else phrase for phrase in statement.phrases), relation
        )
        for wrong in statement.phrases
        for group in scene.groups
        for relation in [statement.relation]
    ]
    if attribute == "position" and statement.relation:
        mended += [Statement(statement.phrases, relation) for relation in ("left", "right", "above", "below")]
    return mended


def put(phrase, field, group):
    return type(phrase)(**{**asdict(phrase), field: getattr(group, field)})


def test_both_phrases_of_a_statement_are_made_wrong():
    places = Counter()
    for index in range(300):
        scene, statement, _ = wrong(index, "colour")
        if len(statement.phrases) == 2:
            places[[holds(Statement((phrase,)), scene) for phrase in statement.phrases].index(False)] += 1
    assert min(places[0], places[1]) > 40
