"""Captions of images and clips, read from annotation files in their published layouts.

    Karpathy      dataset_coco.json, dataset_flickr30k.json: {"images": [{"filename", "split", "sentences": [{"raw"}]}]}
    the original  coco_karpathy_test.json, coco_karpathy_train.json, flickr30k_test.json: [{"image", "caption"}]
    COCO, NoCaps  {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
    lines         one object a line: {"image", "captions"}, MSRVTT's {"clip_name", "caption"}, {"frames", "caption"}

The content shows which layout a file has. Entries of the same image become one, in the file's order.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, cast

from capfilt.config.evaluation import EvaluationData
from capfilt.errors import AnnotationError
from capfilt.storage import open_input

Entry = dict[str, object]
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # half of a character beyond U+FFFF, as JSON writes it


class Annotated(NamedTuple):
    """An image or a clip with its captions."""

    name: str  # of the image, or of the clip's folder of frames, below the folder of images
    captions: tuple[str, ...]
    place: str  # in the file, for errors: "line 3"
    split: str = ""  # empty where the file names none
    frames: tuple[str, ...] = ()  # names of a clip's frames, where the file lists them


def read_annotations(data: EvaluationData) -> list[Annotated]:
    """Return the images and clips of a file that are in the split asked for, with all their captions.

    Raises:
        AnnotationError: the file is missing, is not JSON, has another layout, nothing of the split, or an entry
            without captions.
    """
    file = data.annotations
    entries = _merged(_entries(file, read_json(file)))
    if not entries:
        raise AnnotationError(f"{file}: holds no entry; fetch it again")
    found = asked_for(entries, data)
    for entry in found:
        if not any(caption.strip() for caption in entry.captions):
            raise AnnotationError(f"{file}: {entry.place}: {entry.name} has no caption; give a file with captions")
    return found


def asked_for(entries: Sequence[Annotated], data: EvaluationData) -> list[Annotated]:
    """Return the entries of the split asked for; the first data.first of them, if that is set.

    Raises:
        AnnotationError: there is none.
    """
    found = [entry for entry in entries if data.split in (None, entry.split)]
    if not found:
        splits = ", ".join(sorted({entry.split for entry in entries} - {""})) or "none at all"
        raise AnnotationError(
            f"{data.annotations}: has no entry of split {data.split}; set data.split to one it has: {splits}"
        )
    return found[: data.first]


def split_of(entry: Entry) -> str:
    """Return the split that an entry names; empty if it names none."""
    return str(entry.get("official_split", entry.get("split", "")))


def read_json(file: str) -> object:
    """Return what a JSON file holds; one object a line gives a list of them.

    Raises:
        AnnotationError: the file is missing, or is neither.
    """
    try:
        with open_input(file) as stream:
            text = stream.read().decode("utf-8-sig")  # some editors put a byte order mark before it
    except FileNotFoundError:
        raise AnnotationError(f"{file}: is not there; set its key to the annotation file") from None
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{file}: is not UTF-8 at byte {error.start}; fetch it again") from None
    lines = text.strip().split("\n")  # not splitlines, which also cuts at characters that a caption may hold
    if len(lines) > 1 and lines[0].startswith("{") and lines[0].rstrip().endswith("}"):
        return [_parsed(line, f"{file}: line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    value = _parsed(text, file)
    return [value] if isinstance(value, dict) and "images" not in value else value


def field(entry: Entry, key: str, kind: type, where: str) -> object:
    """Return a value of an entry.

    Raises:
        AnnotationError: it is missing, or of another type; the message begins with `where`.
    """
    if not isinstance(entry.get(key), kind):
        found = f"{key} is {json.dumps(entry[key])[:50]}" if key in entry else f"{key} is missing"
        raise AnnotationError(f"{where}: {found}, expected {kind.__name__}; give a file in its published layout")
    return entry[key]


def _parsed(text: str, where: str) -> object:
    try:
        value: object = json.loads(text)
        if _HALF.search(text):  # half a character by itself, such as where a text was cut, cannot be encoded
            value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        return value
    except (ValueError, RecursionError) as error:  # RecursionError: nested too deep; ValueError also: too long a number
        raise AnnotationError(f"{where}: is not JSON ({error}); fetch it again") from None


def _entries(file: str, value: object) -> Iterator[Annotated]:
    if isinstance(value, dict) and isinstance(value.get("annotations"), list):
        return _coco(file, value)
    items = value.get("images") if isinstance(value, dict) else value
    if not isinstance(items, list):
        raise AnnotationError(
            f"{file}: holds neither a list of entries nor one under images; give Karpathy, BLIP or COCO JSON"
        )
    read = _karpathy if isinstance(value, dict) else _plain
    return (read(entry, f"entry {number}", f"{file}: entry {number}") for number, entry in _objects(file, items))


def _objects(file: str, items: list[object]) -> Iterator[tuple[int, Entry]]:
    for number, entry in enumerate(items, 1):
        if not isinstance(entry, dict):
            raise AnnotationError(f"{file}: entry {number} is a {type(entry).__name__}, not an object; fetch it again")
        yield number, entry


def _karpathy(entry: Entry, place: str, where: str) -> Annotated:
    folder, name = entry.get("filepath", ""), field(entry, "filename", str, where)
    sentences = cast("list[object]", field(entry, "sentences", list, where))
    captions = tuple(str(field(each, "raw", str, where)) for _, each in _objects(f"{where}: sentences", sentences))
    return Annotated(f"{folder}/{name}" if folder else str(name), captions, place, str(entry.get("split", "")))


def _coco(file: str, value: Entry) -> Iterator[Annotated]:
    captions: dict[int | str, list[str]] = {}
    for number, note in _objects(file, cast("list[object]", value["annotations"])):
        caption = field(note, "caption", str, f"{file}: annotation {number}")
        captions.setdefault(_id(note, "image_id", f"{file}: annotation {number}"), []).append(str(caption))
    images = cast("list[object]", field(value, "images", list, file))
    for number, image in _objects(file, images):
        name = str(field(image, "file_name", str, f"{file}: image {number}"))
        texts = tuple(captions.get(_id(image, "id", f"{file}: image {number}"), ()))
        yield Annotated(name, texts, f"image {number}", str(image.get("domain", "")))


def _id(entry: Entry, key: str, where: str) -> int | str:
    """Return the id that ties captions to an image; without it, all captions and images that lack one would match."""
    value = entry.get(key)
    if not isinstance(value, (int, str)):
        raise AnnotationError(f"{where}: {key} is neither a number nor a name; give a file in its published layout")
    return value


def _plain(entry: Entry, place: str, where: str) -> Annotated:
    frames = tuple(map(str, cast("list[object]", field(entry, "frames", list, where)))) if "frames" in entry else ()
    keys = ("image", "clip_name", "video") if not frames else ("clip_name", "video", "image", "frames")
    key = next((key for key in keys if key in entry), keys[0])
    name = frames[0] if key == "frames" else str(field(entry, key, str, where))
    given = entry.get("captions", entry.get("caption"))
    captions = tuple(given) if isinstance(given, list) else (given,)
    if not all(isinstance(caption, str) for caption in captions):
        raise AnnotationError(f"{where}: {name} has no text under captions or caption; give each entry one or a list")
    return Annotated(name, captions, place, split_of(entry), frames)


def _merged(entries: Iterable[Annotated]) -> list[Annotated]:
    """Merge the entries of each image; the original's training files have one entry for each caption."""
    found: dict[str, Annotated] = {}
    for entry in entries:
        before = found.get(entry.name)
        found[entry.name] = before._replace(captions=before.captions + entry.captions) if before else entry
    return list(found.values())
