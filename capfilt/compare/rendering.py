"""A comparison as text for a terminal."""

from collections.abc import Sequence

from capfilt.compare.figures import Comparison, Example
from capfilt.display import counted, four_places, one_line
from capfilt.stats.scores import QUANTILES
from capfilt.stats.terminal import Row, columns, share


def render_comparison(comparison: Comparison) -> str:
    """Return the figures as tables, and the examples."""
    told = zip(comparison.runs, comparison.samples, comparison.extents, comparison.policies, strict=True)
    head = "\n".join(
        f"{name:<6}  {run}: {counted(samples, 'sample')}, {extent}, policy {policy}"
        for name, (run, samples, extent, policy) in zip(("first", "second"), told, strict=True)
    )
    sections = [head, _samples(comparison)]
    sections += [_decisions(comparison), _shifts(comparison)] if comparison.sources else []
    sections += _examples("gained: kept by the second alone", comparison.gained_examples)
    sections += _examples("lost: kept by the first alone", comparison.lost_examples)
    return "\n\n".join(sections)


def _samples(comparison: Comparison) -> str:
    matched = comparison.matched
    rows: list[Row] = [["samples, by image", "count", "share"]]
    rows += [["in both", matched, share(matched, max(comparison.samples))]]
    for name in ("kept_by_both", "gained", "lost"):
        count = getattr(comparison, name)
        rows.append([f"  {name.replace('_', ' ')}", count, share(count, matched)])
    rows += [
        [f"  {before}, then {after}", count, share(count, matched)] for before, after, count in comparison.statuses
    ]
    rows += [["only in the first", comparison.only_first, ""], ["only in the second", comparison.only_second, ""]]
    rows += [["without an image", " and ".join(f"{count:,}" for count in comparison.without_image), ""]]
    return columns(rows)


def _decisions(comparison: Comparison) -> str:
    head = ["texts", "matched", "changed", "agree", "both keep", "gained", "lost", "only first", "only second"]
    rows: list[Row] = [head]
    for name, source in comparison.sources.items():
        changed = share(source.changed, source.matched)
        counts = [source.kept_by_both, source.gained, source.lost, source.only_first, source.only_second]
        agree = f"{100 * source.agreement:.1f} %" if source.matched else ""
        rows.append([name, source.matched, changed, agree, *counts])
    return columns(rows)


def _shifts(comparison: Comparison) -> str:
    rows: list[Row] = [["second less first", "texts", "mean", *QUANTILES]]
    for name, source in comparison.sources.items():
        for score, shift in source.shifts.items():
            values = [shift.mean, *shift.quantiles.values()]
            rows.append([f"{name} {score}", shift.texts, *(f"{value:+z.4f}" for value in values)])
    return columns(rows)


def _examples(title: str, examples: Sequence[Example]) -> list[str]:
    if not examples:
        return []
    lines = [title]
    for example in examples:
        by, reason = next(pair for pair in zip(("first", "second"), example.reasons, strict=True) if pair[1])
        place = f"{example.shards[0]}/{example.positions[0]}"
        lines.append(
            f"  {example.source} of {place} ({one_line(example.keys[0], 40)}), rejected by the {by} as {reason}"
        )
        lines += [f"    {scores}  {one_line(text, 70)}" for scores, text in _lines(example)]
    return ["\n".join(lines)]


def _lines(example: Example) -> list[tuple[str, str]]:
    """Return the scores and the text of each run, or one line where the text is the same."""
    numbers = [four_places(value) for value in example.itm]
    if example.texts[0] == example.texts[1]:
        return [(f"itm {numbers[0]} then {numbers[1]}", example.texts[0])]
    return [(f"itm {number}", text) for number, text in zip(numbers, example.texts, strict=True)]
