"""A calibration as text for a terminal."""

from collections.abc import Sequence

from capfilt.calibrate.curves import LEVEL, Rate, enough
from capfilt.calibrate.measured import Point, SourceCalibration
from capfilt.calibrate.proposal import Calibration
from capfilt.display import counted
from capfilt.stats.terminal import Row, bar, columns

_WIDTH = 16  # of a bar, characters


def render_calibration(found: Calibration, plain: bool = True) -> str:
    """Return a table with the curves of each source, the proposed threshold, and warnings.

    Args:
        found: the calibration.
        plain: use only ASCII.
    """
    rate = f"thresholds of P(match) for a false-accept rate of {_percent(found.error)}"
    sections = [f"{found.run}: {found.extent}, {rate}"]
    for source in found.sources:
        sections += [_curves(source, found.error, plain), _proposal(source)]
    sections += [f"warning: {warning}" for warning in found.warnings]
    return "\n\n".join(sections)


def _curves(source: SourceCalibration, error: float, plain: bool) -> str:
    trusted = source.noise_at_most is not None and source.controls >= enough(error)
    wrong = ["wrong of kept, at most"] if trusted else []
    rows: list[Row] = [["itm at least", "false accepts", "", "kept", "", *wrong, *_judged(source.in_force)]]
    points = {point.threshold: (point, "") for point in source.points}
    for point, mark in ((source.in_force, "in force"), (source.proposed, "proposed")):
        if point is not None:
            before = points.get(point.threshold, (point, ""))[1]
            points[point.threshold] = (point, ", ".join(filter(None, [before, mark])))
    for point, mark in _told_apart([each for _, each in sorted(points.items())]):
        accepted = _share(point.false_accepts), _bar(point.false_accepts, plain)
        wrong = [_percent(point.wrong_at_most or 0.0)] if trusted else []
        kept = _share(point.kept), _bar(point.kept, plain)
        judged = map(_share, _judged(point).values())
        rows.append([f"{point.threshold:.10g}  {mark}".rstrip(), *accepted, *kept, *wrong, *judged])
    mismatches = f", of which {_percent(source.noise_at_most or 0.0)} at most are mismatches" if trusted else ""
    head = f"{source.source}: {counted(source.texts, 'text')}{mismatches}; {counted(source.controls, 'control pair')}"
    return f"{head}\n{columns(rows)}"


def _told_apart(points: Sequence[tuple[Point, str]]) -> list[tuple[Point, str]]:
    """Return the points without repeats at the end that no text or control reaches; marked points stay."""
    empty = [point.kept.part == 0 and point.false_accepts.part == 0 for point, _ in points]
    return [each for n, each in enumerate(points) if each[1] or not (n and empty[n - 1] and empty[n])]


def _proposal(source: SourceCalibration) -> str:
    point = source.proposed
    if point is None:
        return f"{source.source}: no threshold is proposed"
    rates = {"false accepts": point.false_accepts, "kept": point.kept, **_judged(point)}
    least, most = (f"{end:.4g}" if end is not None else "no end" for end in (source.least, source.most))
    lines = [f"proposed: {source.source}_itm: {point.threshold:.4g} (the target rate is met from {least} to {most})"]
    return "\n".join(lines + [f"  {name}: {_told(rate)}" for name, rate in rates.items()])


def _judged(point: Point) -> dict[str, Rate]:
    """Return the rates of a threshold by people's own texts and by labels, if there are any."""
    rates = {"false rejects": point.false_rejects, "precision": point.precision, "recall": point.recall}
    return {name: rate for name, rate in rates.items() if rate is not None}


def _told(rate: Rate) -> str:
    interval = f"{_percent(rate.low)} to {_percent(rate.high)}"
    return f"{_percent(rate.share)} ({rate.part:,} of {rate.whole:,}; {100 * LEVEL:g} % interval {interval})"


def _share(rate: Rate) -> str:
    return _percent(rate.share) if rate.whole else ""


def _bar(rate: Rate, plain: bool) -> str:
    """Return a bar, padded so that its column is flush left."""
    return bar(rate.part, rate.whole, _WIDTH, plain).ljust(_WIDTH)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
