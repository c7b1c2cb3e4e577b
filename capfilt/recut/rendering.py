"""The difference between two policies as text for a terminal."""

from collections.abc import Sequence

from capfilt.display import four_places, one_line
from capfilt.recut.difference import Difference, Example
from capfilt.stats.terminal import Row, columns, share


def render_difference(found: Difference) -> str:
    """Return the figures as tables, and the examples."""
    policies = f"policy {found.before} before, {found.after} after"
    head = f"{found.run}: {found.shards} of {found.planned} shards complete, {policies}"
    settings = [f"  {key}: {before} before, {after} after" for key, (before, after) in found.settings.items()]
    sections = ["\n".join([head, *(settings or ["  both keep the same"])]), _kept(found)]
    sections += [_moves(found)] if found.moves else []
    sections += _examples("gained", found.gained) + _examples("lost", found.lost)
    return "\n\n".join(sections)


def _kept(found: Difference) -> str:
    rows: list[Row] = [["", "scored", "before", "", "after", "", "gained", "lost"]]
    for name, each in found.sources.items():
        before, after = share(each.kept_before, each.scored), share(each.kept_after, each.scored)
        rows.append([name, each.scored, each.kept_before, before, each.kept_after, after, each.gained, each.lost])
    before, after = share(found.samples_before, found.samples), share(found.samples_after, found.samples)
    counts = [found.samples_before, before, found.samples_after, after, found.samples_gained, found.samples_lost]
    return columns([*rows, ["samples with a kept text", found.samples, *counts]])


def _moves(found: Difference) -> str:
    rows: list[Row] = [["source", "before", "after", "texts"]]
    rows += [[move.source, move.before or "kept", move.after or "kept", move.texts] for move in found.moves]
    return columns(rows, left=3)


def _examples(title: str, examples: Sequence[Example]) -> list[str]:
    if not examples:
        return []
    rows: list[Row] = [
        [
            f"  {example.source} of {example.shard}/{example.position} ({one_line(example.key, 40)})",
            f"itm {four_places(example.itm)}",
            f"{example.before or 'kept'}, then {example.after or 'kept'}",
            one_line(example.text, 70),
        ]
        for example in examples
    ]
    return [f"{title}, for example\n{columns(rows, left=4)}"]
