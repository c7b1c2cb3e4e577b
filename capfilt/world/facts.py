"""The truth of a text: whether it describes the scene and all its claims hold.

A text is true if it is a description in the caption language and the scene has everything it claims. A
phrase is about a whole group: "a circle" and "one circle" claim exactly one circle, "three stars"
exactly three, "stars" without a number at least two. A caption may leave out a size, a colour, a place
or the other group and still be true. A text that claims nothing about the image (an advert, a file name,
a date), one in another language, and one that is not well formed are false.
"""

import re

from capfilt.texts import clean
from capfilt.world.language import Phrase, Relation, Statement, parse
from capfilt.world.scenes import Group, Region, Scene

# The relations that hold for a group, given its own region and that of the other one.
_SIDES: dict[tuple[Region, Region], tuple[Relation, ...]] = {
    ("left", "right"): ("left", "beside"),
    ("right", "left"): ("right", "beside"),
    ("top", "bottom"): ("above",),
    ("bottom", "top"): ("below",),
}


def is_true(text: str, scene: Scene) -> bool:
    """Return whether a text of any origin is a true description of the scene.

    Markup, letter case and punctuation make no difference.
    """
    statement = parse(plain(text))
    return statement is not None and holds(statement, scene)


def plain(text: str) -> str:
    """Return a text without markup and punctuation, in lower case."""
    return " ".join(re.sub(r"[^\w\s]", " ", clean(text).lower()).split())


def holds(statement: Statement, scene: Scene) -> bool:
    """Return whether all claims of a statement hold in the scene."""
    groups = [find(phrase, scene) for phrase in statement.phrases]
    first, second = groups[0], groups[-1]
    if first is None or second is None:
        return False
    if len(groups) == 1:
        return True
    distinct = first is not second
    return distinct and (statement.relation is None or statement.relation in relations(first, second))


def relations(first: Group, second: Group) -> tuple[Relation, ...]:
    """Return the relations of the first group to the second."""
    return _SIDES[first.region, second.region]


def find(phrase: Phrase, scene: Scene) -> Group | None:
    """Return the group that a phrase describes; no two groups share a shape, so there is at most one."""
    return next((group for group in scene.groups if _fits(phrase, group)), None)


def _fits(phrase: Phrase, group: Group) -> bool:
    return (
        phrase.shape == group.shape
        and (group.count > 1 if phrase.count is None else phrase.count == group.count)
        and phrase.size in (None, group.size)
        and phrase.colour in (None, group.colour)
        and phrase.region in (None, group.region)
    )
