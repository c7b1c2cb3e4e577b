"""The rows of a list: those of a table (CSV, TSV), or a line of JSON each.

A quote in a cell that is not doubled makes csv silently read all rows up to the next quote as one cell. So where a
cell spans several lines, each of them is checked for being a row by itself.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from capfilt.display import few
from capfilt.shards.grouping import IMAGE_SUFFIXES
from capfilt.shards.samples import MAX_METADATA_BYTES, first_text, parse_json

_PATHS = ("image", "file_name", "filename", "filepath", "file", "path", "image_path", "image_name", "img")
_TEXTS = ("caption", "captions", "text", "txt", "alt_text", "title")
_MAX_CELL = MAX_METADATA_BYTES  # characters of a quoted cell; a text is cut long before that
_MAX_LINES = 100  # of one row of a TSV: else a file full of quotes would be read anew from each of its lines
_URLS = ("url", "urls", "image_url", "uri")
_QUOTES = "its quotes are not paired; double each quote inside a quoted cell"
_LINE_END = re.compile(r"\r\n|\r|\n")


class Row(NamedTuple):
    """A row of a list: one line, several where a cell holds line ends, or lines that cannot be understood."""

    line: int  # the first of its lines; the head is line 1
    last: int
    values: Mapping[str, object]
    path: str | None = None  # of its image
    text: str | None = None
    problem: str = ""  # why it cannot be understood

    @property
    def place(self) -> str:
        """Its lines, for people."""
        return f"line {self.line}" if self.last == self.line else f"lines {self.line} to {self.last}"


def table_rows(text: str, delimiter: str) -> list[Row]:
    """Return the rows below the head of a table.

    In a CSV quotes delimit cells. In a TSV they are ordinary characters, as in most such files, except around a whole
    cell; such cells may hold tabs and line ends if only then the row has as many cells as the head. Where the quotes of
    a CSV are not paired, the lines up to the next one that is a row by itself are one row with a problem.

    Raises:
        ValueError: no column names the images, or the head cannot be understood; the message says what to do.
    """
    csv.field_size_limit(max(_MAX_CELL, csv.field_size_limit()))  # for the whole process: csv has no other limit
    table = _Table(list(io.StringIO(text, newline="")), delimiter)
    rows, at = [], table.below
    while at < len(table.lines):
        found = table.read(at)
        if found.cells or found.problem:
            rows.append(table.row(at, found))
        at = found.stop
    return rows


def json_rows(text: str) -> list[Row]:
    """Return the rows of a file that has a JSON object in each line. Each may have other keys.

    Raises:
        ValueError: no key names the images, or no line can be understood; the message says what to do.
    """
    rows = list(_json_rows(text))
    names = {name for row in rows for name in row.values}
    if rows and names.isdisjoint(_PATHS):
        if rows[0].problem and not names:
            raise ValueError(f"line {rows[0].line} {rows[0].problem}; write an object with the key image in each line")
        raise ValueError(_unnamed("key", sorted(names)))
    return rows


class _Cells(NamedTuple):
    cells: list[str]
    stop: int  # the line after them
    problem: str = ""


class _Table:
    """The lines of a table, and the columns that its head names. Lines are counted from 0 here."""

    def __init__(self, lines: Sequence[str], delimiter: str) -> None:
        self.lines, self.delimiter = lines, delimiter
        self.names: list[str] = []
        self.path = self.below = 0
        while self.below < len(lines) and not self.names:  # blank lines may precede the head
            self.names, self.below, problem = self.read(self.below)
            if problem:
                raise ValueError(f"line {self.below}: {problem}")
        if twice := [name for name, count in Counter(self.names).items() if name.strip() and count > 1]:
            raise ValueError(f"has several columns {', '.join(few(twice))}; give all but one other names")
        names = [name.strip().lower() for name in self.names]
        paths = [names.index(name) for name in _PATHS if name in names]
        texts = [names.index(name) for name in _TEXTS if name in names]
        if not paths:
            raise ValueError(_no_column(self.names, self.below, delimiter))
        self.path, self.text = paths[0], texts[0] if texts else len(self.names)

    def read(self, start: int) -> _Cells:
        """Return the cells of the row that begins at a line; none of a blank one."""
        line = self.lines[start].rstrip("\r\n")
        cells = line.split(self.delimiter) if line else []
        if '"' not in line:
            return _Cells(cells, start + 1)
        if self.delimiter == ",":
            return self._quoted(start, len(self.lines))
        if any(cell.startswith('"') and not _is_quoted(cell) for cell in cells):
            found = self._quoted(start, min(start + _MAX_LINES, len(self.lines)))
            if not found.problem and len(found.cells) == len(self.names):
                return found
        return _Cells([_unquoted(cell) for cell in cells], start + 1)

    def row(self, start: int, found: _Cells) -> Row:
        """Return the row of some cells that begin at a line."""
        cells, problem = found.cells, found.problem
        if len(cells) > len(self.names):
            problem = f"has {len(cells)} cells, the head {len(self.names)}"
        path, text = (cells[at] if at < len(cells) else None for at in (self.path, self.text))
        return Row(start + 1, found.stop, dict(zip(self.names, cells, strict=False)), path, text, problem)

    def _quoted(self, start: int, end: int) -> _Cells:
        """Return the cells of the row that begins at a line and ends before another, where quotes delimit cells."""
        # Lines that are rows by themselves: in a valid row, at most the line with its image.
        rows: list[int] = []
        stop = start

        def feed() -> Iterator[str]:
            nonlocal stop
            while stop < end and len(rows) < 2:
                stop += 1
                yield self.lines[stop - 1]
                # csv asks for another line: it is inside a cell
                new = (start, stop) if stop == start + 1 else (stop,)
                rows.extend(at for at in new if at < end and self._is_row(self.lines[at]))

        try:
            cells = next(csv.reader(feed(), delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            problem = f"has a cell of over {_MAX_CELL} characters" if "field limit" in str(error) else _QUOTES
            return _Cells([], next((at for at in rows if at > start), stop), problem)
        own = start + sum(len(_LINE_END.findall(cell)) for cell in cells[: self.path])
        kind = _kind(cells[self.path]) if self.path < len(cells) else ""
        alike = (at for at in range(start, stop) if stop > start + 1 and self._names_such(self.lines[at], kind))
        for at in sorted({*rows, *alike}):
            if at != own:
                return _Cells([], max(at, start + 1), _QUOTES)
        return _Cells(cells, stop)

    def _is_row(self, line: str) -> bool:
        """Return whether a line is a row by itself. Captions hold commas too, so in a CSV it must name an image."""
        cells = line.rstrip("\r\n").split(self.delimiter)
        if self.delimiter == "\t":
            return len(cells) == len(self.names)
        readings = (cells, next(csv.reader([line]), []))
        return any(len(cells) == len(self.names) and _is_image(cells[self.path]) for cells in readings)

    def _names_such(self, line: str, kind: str) -> bool:
        """Return whether a line of a CSV has as many cells as the head, and an image of a kind."""
        cells = line.rstrip("\r\n").split(self.delimiter)
        if not kind or self.delimiter != ",":
            return False
        return len(cells) == len(self.names) and _kind(cells[self.path]) == kind


def _json_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = parse_json(line)
        except (ValueError, RecursionError) as error:
            yield Row(number, number, {}, problem=f"is not JSON: {error}")
            continue
        if not isinstance(values, dict):
            yield Row(number, number, {}, problem="is not a JSON object")
            continue
        paths = (value for name in _PATHS if isinstance(value := values.get(name), str))
        texts = (first for name in _TEXTS if (first := first_text(values.get(name))) is not None)
        yield Row(number, number, values, next(paths, None), next(texts, None))


def _no_column(names: Sequence[str], line: int, delimiter: str) -> str:
    """Return what is wrong with a head without a column of image files, and what to do."""
    if any(_is_image(name) for name in names):
        return f"line {line} is a row, not a head; write a head above it, with a column {_PATHS[0]}"
    if len(names) == 1 and any(other in names[0] for other in ";,|\t"):
        wanted = "commas" if delimiter == "," else "tabs"
        return f"the head is one cell, {names[0][:100]!r}; put {wanted} between cells"
    return _unnamed("column", names)


def _unnamed(what: str, names: Sequence[str]) -> str:
    """Return that none of the columns (or keys) names image files, and what to do."""
    if any(name.strip().lower() in _URLS for name in names):
        return f"no {what} names image files; let img2dataset fetch those of the URLs"
    return f"no {what} names the image files; name it {_PATHS[0]}; found {few(names)}"


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if _is_quoted(cell) else cell


def _is_image(cell: str) -> bool:
    return cell.strip().rpartition(".")[2].lower() in IMAGE_SUFFIXES


def _kind(path: str) -> str:
    """Return what image files of a kind have in common: their ending or, if they have none, their folder."""
    folder, slash, name = path.strip().rpartition("/")
    return name.rpartition(".")[2] if "." in name else folder + slash
