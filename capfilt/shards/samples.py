"""Read the text and the metadata of a sample from their bytes, whatever the kind of shard."""

import codecs
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from capfilt.records import Sample

NO_SAMPLES = "holds no samples"  # the damage of a whole but empty shard begins so
_CAPTIONS = ("caption", "captions")
MAX_TEXT = 10_000  # characters; what is longer is no caption, and is cut
MAX_TEXT_BYTES = 4 * MAX_TEXT + 4  # holds more than MAX_TEXT characters of any script
MAX_METADATA_BYTES = 4 << 20
MAX_NESTING = 800  # levels of JSON; Python's own limit depends on how much stack is left
MAX_IMAGE_BYTES = 1 << 30  # a larger image is not even read, so that a sample always fits into memory


class Text(NamedTuple):
    """A sample's own text, and what is wrong with it."""

    text: str
    status: str  # ok, missing, empty, not_utf8 or cut
    error: str = ""


class Metadata(NamedTuple):
    """A sample's own JSON, and those of its fields that are used."""

    raw: str = ""  # valid JSON, or empty
    caption: str | None = None
    url: str = ""
    error: str = ""


def describe(sample: Sample, text: bytes | None, metadata: bytes | None) -> Sample:
    """Return a sample completed by its text and its JSON; None stands for a missing one.

    The caption in the JSON counts only if there is no text: img2dataset writes both, with the same words.
    """
    found = read_metadata(metadata)
    if text is None and found.caption is not None:
        text = found.caption.encode("utf-8", "surrogatepass")
    own = read_text(text)
    error = "; ".join(filter(None, [sample.error, own.error, found.error]))
    return replace(sample, text=own.text, text_status=own.status, url=found.url, metadata=found.raw, error=error)


def read_text(data: bytes | None) -> Text:
    """Decode a text. Bytes after MAX_TEXT_BYTES hold none of its first MAX_TEXT characters, and are ignored."""
    if data is None:
        return Text("", "missing")
    try:
        whole = len(data) <= MAX_TEXT_BYTES  # else the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(data[:MAX_TEXT_BYTES], final=whole)
    except UnicodeDecodeError as error:
        shown = data[max(0, error.start - 10) :][:30]
        return Text("", "not_utf8", f"text is not UTF-8 at byte {error.start}: {shown!r}")
    if not text.strip():
        return Text("", "empty")
    return Text(text[:MAX_TEXT], "cut" if len(text) > MAX_TEXT else "ok")


def read_metadata(data: bytes | None) -> Metadata:
    """Read a sample's JSON. What is not JSON is dropped: it would make the outputs unreadable too."""
    if data is None:
        return Metadata()
    if len(data) > MAX_METADATA_BYTES:
        return Metadata(error=f"metadata has over {MAX_METADATA_BYTES} bytes and is dropped")
    unsayable: list[str] = []

    def number(text: str) -> float | None:
        if math.isfinite(value := float(text)):
            return value
        unsayable.append(text)
        return None

    try:
        raw = data.decode("utf-8-sig")
        value = parse_json(raw, parse_constant=unsayable.append, parse_float=number)
    except (ValueError, RecursionError) as error:
        return Metadata(error=f"metadata is not JSON and is dropped ({error}): {data[:40]!r}")
    if unsayable:  # pandas writes NaN for an absent value; append returned None for it, which JSON has
        raw = json.dumps(value)
    value = {"captions": value} if isinstance(value, list) else value
    fields = value if isinstance(value, dict) else {}
    texts = (first for name in _CAPTIONS if (first := first_text(fields.get(name))) is not None)
    url = fields.get("url")
    return Metadata(raw, next(texts, None), _storable(url) if isinstance(url, str) else "")


def first_text(value: object) -> str | None:
    """Return the text of a value. Of several captions the first is the sample's; all stay in its metadata."""
    if isinstance(value, list):
        value = value[0] if value else None
    return value if isinstance(value, str) else None


def parse_json(text: str, **hooks: Callable[[str], object]) -> object:
    """Return the value of a JSON text, whatever stack is left, so that it can be written again; hooks as of json.loads.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested deeper than MAX_NESTING.
    """
    value = json.loads(text, **hooks)  # type: ignore[arg-type]
    if text.count("[") + text.count("{") > MAX_NESTING and _nesting(value) > MAX_NESTING:
        raise RecursionError(f"nested over {MAX_NESTING} levels deep")
    return value


def _nesting(value: object) -> int:
    """Return how many levels of lists and objects a value has."""
    levels, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        levels += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return levels


def to_json(row: Mapping[str, object]) -> bytes:
    """Return a row of a table as the JSON of its sample, without absent values and bytes; nested bytes become null."""
    present = {name: value for name, value in row.items() if value is not None and not isinstance(value, bytes)}
    return json.dumps(present, default=lambda value: None if isinstance(value, bytes) else str(value)).encode("utf-8")


def _storable(text: str) -> str:
    """Return a text without lone surrogates, which JSON can express but no table can hold."""
    return text.encode("utf-8", "replace").decode()
