"""Texts that people judged: a CSV file of key, text and label."""

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from capfilt.calibrate.curves import Curve
from capfilt.display import reveal
from capfilt.errors import QueryError
from capfilt.policy import least_itm
from capfilt.query import OpenRun
from capfilt.texts import clean

_MEANINGS = {
    **dict.fromkeys(("1", "true", "yes", "match", "good"), True),
    **dict.fromkeys(("0", "false", "no", "mismatch", "bad"), False),
}


@dataclass(frozen=True, slots=True)
class Label:
    """A person's judgement of a text."""

    key: str
    text: str
    match: bool


@dataclass(frozen=True, slots=True)
class Labelled:
    """The judged texts of one source."""

    true: Curve
    false: Curve


@dataclass(frozen=True, slots=True)
class Found:
    """Labels, and the candidates that they are about."""

    sources: dict[str, Labelled]
    missing: list[Label]  # that fit no scored candidate
    ambiguous: list[Label]  # that fit candidates of several samples
    contradicting: list[Label]  # that another label of the same text contradicts; one for each text


def read_labels(path: Path) -> list[Label]:
    """Return the labels of a CSV file with the columns key, text and label.

    Raises:
        QueryError: a column is missing or there twice, there is no label, a line has more cells than the head, or a
            label is none of 1, 0, true, false, yes, no, match, mismatch, good, bad.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            absent = {"key", "text", "label"} - set(reader.fieldnames or ())
            if absent:
                raise QueryError(f"{path}: has no column {', '.join(sorted(absent))}; begin it with key,text,label")
            if twice := [name for name in ("key", "text", "label") if (reader.fieldnames or []).count(name) > 1]:
                raise QueryError(f"{path}: has several columns {', '.join(twice)}; give all but one other names")
            labels = [_label(path, reader.line_num, row) for row in reader]
        except (csv.Error, UnicodeDecodeError) as error:
            raise QueryError(f"{path}: line {reader.line_num + 1}: {error}; write it as UTF-8 CSV") from None
    if not labels:
        raise QueryError(f"{path}: has a head, but no line below it; give a line for each text that was judged")
    return labels


def match_labels(opened: OpenRun, labels: Sequence[Label]) -> Found:
    """Find the candidates of some labels, by key and cleaned text.

    Texts with contradicting labels are left out, and texts that several samples have.
    """
    verdicts = {(label.key, clean(label.text)): label for label in labels}
    both = {name for label in labels if verdicts[name := (label.key, clean(label.text))].match != label.match}
    contradicting = [verdicts.pop(name) for name in sorted(both)]
    keys = pa.table({"key": list({label.key for label in labels})})
    opened.connection.register("labelled", keys)
    try:
        rows = opened.sql(
            "SELECT shard, position, key, source, text, itm FROM candidates SEMI JOIN labelled USING (key)"
            " WHERE itm IS NOT NULL ORDER BY ALL"
        ).fetchall()
    finally:
        opened.connection.unregister("labelled")
    places: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    samples = defaultdict(set)
    for shard, position, key, source, text, itm in rows:
        if (key, clean(text)) in verdicts:
            places[key, clean(text)].append((source, itm))
            samples[key, clean(text)].add((shard, position))
    clear = {name: found for name, found in places.items() if len(samples[name]) == 1}
    return Found(
        sources=dict(_by_source(opened, clear, verdicts)),
        missing=[label for name, label in verdicts.items() if name not in places],
        ambiguous=[label for name, label in verdicts.items() if len(samples.get(name, ())) > 1],
        contradicting=contradicting,
    )


def _by_source(
    opened: OpenRun,
    places: Mapping[tuple[str, str], list[tuple[str, float]]],
    verdicts: Mapping[tuple[str, str], Label],
) -> Iterator[tuple[str, Labelled]]:
    scores: dict[tuple[str, bool], list[float]] = defaultdict(list)
    for name, found in places.items():
        for source, itm in found:
            scores[source, verdicts[name].match].append(itm)
    for source in sorted({source for source, _ in scores}):
        in_force = least_itm(opened.policy)[source]
        true, false = (Curve.of([np.array(scores[source, match], np.float32)], in_force) for match in (True, False))
        yield source, Labelled(true, false)


def _label(path: Path, line: int, row: Mapping[str | None, Any]) -> Label:
    if any(row.get(None, ())):  # cells that have no column
        raise QueryError(f"{path}: line {line}: has more cells than the head; put texts with commas into quotes")
    key, text, value = (row[name] or "" for name in ("key", "text", "label"))
    match = _MEANINGS.get(value.strip().lower())
    if match is None:
        raise QueryError(f"{path}: line {line}: label {reveal(value, 60)!r} is none of {', '.join(_MEANINGS)}")
    return Label(key, text, match)
