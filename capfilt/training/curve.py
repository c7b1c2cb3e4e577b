"""The losses of a run as an SVG, drawn here because a plotting library would be a large dependency."""

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 96, 32, 40  # margins; the right one holds the names
POINTS = 400  # at most in a line: with more, neighbours would share a pixel
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7")
TICKS = 5

Line = Sequence[tuple[float, float]]  # (step, loss)


def draw(lines: Mapping[str, Line], title: str) -> str:
    """Return an SVG of lines by name over the steps, with axes that begin at 0."""
    steps = max((step for line in lines.values() for step, _ in line), default=0) or 1
    top = max((loss for line in lines.values() for _, loss in line), default=0) or 1
    parts = [_text(LEFT, TOP - 12, title, "start"), *_axes(steps, top)]
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        spots = [(_x(step, steps), _y(loss, top)) for step, loss in _thinned(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(WIDTH - RIGHT + 8, TOP + 12 + 18 * number, f"{name} {line[-1][1]:.3g}", "start", colour))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _axes(steps: float, top: float) -> list[str]:
    parts = []
    for tick in range(TICKS + 1):
        share = tick / TICKS
        x, y = _x(share, 1), _y(share, 1)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{share * top:.3g}", "end"))
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{share * steps:,.0f}", "middle"))
    return [*parts, _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "step", "middle")]


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _x(step: float, steps: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * step / steps


def _y(loss: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * max(loss, 0.0) / top


def _thinned(line: Line) -> Line:
    """Return a line of at most POINTS points, each the mean of neighbours."""
    size = -(-len(line) // POINTS)
    groups = [line[i : i + size] for i in range(0, len(line), size)]
    return [(group[-1][0], sum(loss for _, loss in group) / len(group)) for group in groups]
