"""Group the members of a tar into samples: members with one key make one sample, wherever they are in the tar.

The key is the member's path without its last suffix, if that suffix is known: v1.2.photo.jpg and v1.2.photo.txt
are one sample, and v1.2.photo and v1.3.photo are two. (Cutting at the first dot, as other readers do, merges them.)
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from capfilt.records import PassedOver
from capfilt.shards.tar import Member

Part = Literal["image", "text", "metadata"]

IMAGE_SUFFIXES = (
    *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif", "avifs"),
    *("jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "ppm", "pgm", "pbm", "pnm"),
    *("heic", "heif", "jxl", "pfm", "svg"),  # cannot be decoded: their samples are refused, not overlooked
)
_TEXT_SUFFIXES = ("txt", "caption", "text")  # where a key has several, the first counts
_PARTS: dict[str, Part] = {
    **dict.fromkeys(IMAGE_SUFFIXES, "image"),
    **dict.fromkeys(_TEXT_SUFFIXES, "text"),
    "json": "metadata",
}
_MAX_SUFFIXES = 30  # reported of a shard: those of files such as a.0001 and a.0002 say nothing


@dataclass(slots=True)
class Entry:
    """The members of one sample."""

    key: str
    duplicate: bool  # the key belongs to an earlier sample of the shard
    image: Member | None = None
    text: Member | None = None
    metadata: Member | None = None


class Grouped(NamedTuple):
    """The samples of a tar in the order of their first members, and the members of no sample, by suffix."""

    entries: list[Entry]
    passed_over: dict[str, PassedOver]


def group(members: Iterable[Member]) -> Grouped:
    """Return the samples, and the members that belong to none.

    A second image (or text, or JSON) with a key makes a second sample, marked as a duplicate, so that nothing is merged
    or overlooked; of texts with several suffixes, one counts. Archives in one file are grouped separately, since each
    may number its samples from 0. A sample without an image gets the largest other member of its key in that place, so
    that messages can name it. Folders and devices are not reported.
    """
    counts: Counter[tuple[str, int, str]] = Counter()
    entries: dict[tuple[str, int, int], Entry] = {}
    first: dict[str, tuple[int, int]] = {}
    others: list[Member] = []
    for member in members:
        key, part = split_name(member.name)
        if part is None:
            others += [member] if member.kind != "other" else []
            continue
        kind = member.name.rpartition(".")[2].lower() if part == "text" else part
        nth = counts[key, member.archive, kind]
        counts[key, member.archive, kind] = nth + 1
        place = (member.archive, nth)
        entry = entries.get((key, *place))
        if entry is None:
            entry = entries[(key, *place)] = Entry(key, duplicate=first.setdefault(key, place) != place)
        if part != "text" or entry.text is None or kind == _TEXT_SUFFIXES[0]:
            setattr(entry, part, member)
    _stand_in(others, entries)
    return Grouped(list(entries.values()), _by_suffix(others))


def _stand_in(others: Iterable[Member], entries: Mapping[tuple[str, int, int], Entry]) -> None:
    """Give each sample without an image the largest member of no sample whose name is its key and some suffixes."""
    for member in sorted(others, key=lambda other: other.size):
        found = (entries.get((stem, member.archive, 0)) for stem in _stems(member.name))
        entry = next(filter(None, found), None)
        if entry and (entry.image is None or entry.image.kind == "unknown suffix"):
            entry.image = member._replace(kind="unknown suffix")


def _stems(name: str) -> Iterator[str]:
    """Yield a name without its last suffix, and without the last two, as of 0.jpg.bak."""
    for _ in range(2):
        name, dot, suffix = name.rpartition(".")
        if not dot or "/" in suffix or _is_litter(name):
            return
        yield name


def _by_suffix(members: Iterable[Member]) -> dict[str, PassedOver]:
    """Return how many members have each suffix, and the first of them."""
    found: dict[str, PassedOver] = {}
    for member in members:
        name = member.name.rpartition("/")[2]
        suffix = f".{name.rpartition('.')[2].lower()}" if "." in name else "no suffix"
        suffix = "litter of macOS" if _is_litter(member.name) else suffix
        suffix = suffix if suffix in found or len(found) < _MAX_SUFFIXES else "others"
        before = found.get(suffix, PassedOver(0, member.name))
        found[suffix] = PassedOver(before.members + 1, before.example)
    return found


def split_name(name: str) -> tuple[str, Part | None]:
    """Return the key of a member's sample, and which part of the sample the member is; None if it is no part.

    Members of other kinds (cls, npy, pickles) and the litter of macOS are no part of a sample.
    """
    stem, _, suffix = name.rpartition(".")
    part = _PARTS.get(suffix.lower())
    if part is None or "/" in suffix or _is_litter(name):
        return name, None
    return stem, part


def _is_litter(name: str) -> bool:
    return name.rpartition("/")[2].startswith("._") or name.startswith("__MACOSX/")
