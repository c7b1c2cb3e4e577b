"""A sample as a person looks at it: its texts, which of them are kept, and why others are not."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from capfilt.config import Policy
from capfilt.policy import SOURCES, least_itc
from capfilt.query.opened import OpenRun

Place = tuple[str, int]
"""Where a sample is: shard id and position."""


@dataclass(frozen=True, slots=True)
class CardText:
    """One candidate on a card."""

    source: str
    text: str  # exactly as it came
    itm: float | None
    itc: float | None
    kept: bool
    reason: str  # of policy.REASONS; empty when it is kept
    admitted: bool  # passes all rules, leaving aside the least P(match), duplicates and mix
    same: int  # equal for texts of the sample that count as duplicates of each other


@dataclass(frozen=True, slots=True)
class Card:
    """One sample with its candidates, own texts first: the order in which the policy prefers equal ones."""

    shard: str
    position: int
    key: str
    image_sha256: str
    url: str
    width: int | None
    height: int | None
    status: str
    error: str
    texts: list[CardText]

    @property
    def place(self) -> Place:
        """Where the sample is."""
        return self.shard, self.position


_SAMPLE = ("shard", "position", "key", "image_sha256", "url", "width", "height", "status", "error")
_TEXT = "source, text, itm, itc, kept, coalesce(reason, ''), {admitted}, same"  # in the order of CardText's fields
_WANTED = "(SELECT unnest(?) AS shard, unnest(?) AS position)"


def admitted(policy: Policy) -> str:
    """Return the SQL condition that a candidate passes all rules, leaving aside P(match), duplicates and mix.

    The policy states only the first of REASONS that applies, so the cosine of a text with low_itm is checked here.
    """
    bounds = [f"WHEN '{source}' THEN itc >= {bound}::FLOAT" for source, bound in least_itc(policy).items()]
    cosine = f"CASE source {' '.join(bounds)} ELSE true END" if bounds else "true"
    return f"(kept OR reason IN ('duplicate', 'mix') OR (reason = 'low_itm' AND {cosine}))"


def load_cards(opened: OpenRun, places: Sequence[Place]) -> list[Card]:
    """Return a card for each place, in their order."""
    wanted = [[shard for shard, _ in places], [position for _, position in places]]
    texts = defaultdict(list)
    columns = _TEXT.format(admitted=admitted(opened.policy))
    query = f"SELECT shard, position, {columns} FROM candidates SEMI JOIN {_WANTED} "  # noqa: S608
    order = f"ORDER BY shard, position, list_position({list(SOURCES)}, source), caption_index"
    for shard, position, *values in opened.connection.execute(
        f"{query} USING (shard, position) {order}", wanted
    ).fetchall():
        texts[shard, position].append(CardText(*values))
    query = f"SELECT {', '.join(_SAMPLE)} FROM samples SEMI JOIN {_WANTED} USING (shard, position)"  # noqa: S608
    rows = opened.connection.execute(query, wanted).fetchall()
    cards = {row[:2]: Card(**dict(zip(_SAMPLE, row, strict=True)), texts=texts[row[:2]]) for row in rows}
    return [cards[place] for place in places]
