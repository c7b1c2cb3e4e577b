"""Tables and bars for a terminal, or for plain text."""

from collections.abc import Sequence

from capfilt.display import listed

LISTED = 10  # lines of a list that are shown

Row = Sequence[object]

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def columns(rows: Sequence[Row], left: int = 1) -> str:
    """Return rows of cells as aligned columns: the first `left` are flush left, the others flush right.

    Whole numbers get thousands separators.
    """
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in texts
    )


def indented(lines: Sequence[str]) -> list[str]:
    """Return the first LISTED lines and the number of others, each indented."""
    return [f"  {line}" for line in listed(lines, LISTED)]


def share(part: int, whole: int) -> str:
    """Return a share in percent; empty if the whole is 0."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def bar(part: float, whole: float, width: int, plain: bool) -> str:
    """Return a bar that fills a share of `width` characters: in eighths of a character, or plain in whole #."""
    length = part / whole * width if whole else 0.0
    if plain:
        return "#" * round(length)
    full, eighths = divmod(round(8 * length), 8)
    return (_EIGHTHS[8] * full + _EIGHTHS[eighths]).rstrip()
