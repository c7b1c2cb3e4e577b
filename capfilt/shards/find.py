"""Expand what a user names (files, folders, globs, {000..127} ranges, URLs) to the shards it means."""

import glob
import re
from collections.abc import Iterator, Sequence

from capfilt.errors import ConfigError
from capfilt.shards.listing import LIST_SUFFIXES
from capfilt.storage import exists, find_files, join, list_files

_KINDS: tuple[tuple[str, ...], ...] = ((".tar", ".tar.gz", ".tgz"), (".parquet",), LIST_SUFFIXES)
_SUFFIXES = tuple(suffix for kind in _KINDS for suffix in kind)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_RANGE = 10_000_000


def find_shards(inputs: Sequence[str]) -> list[str]:
    """Return the shards that the inputs name, sorted, each once.

    A folder's shards are its tars; its Parquet files if it has no tar, since beside tars they are tables
    without images; its lists if it has neither. Subfolders are searched only by a glob with **.

    Raises:
        ConfigError: an input matches nothing, or a file of a range is missing.
    """
    return sorted({shard for given in inputs for shard in _expand(given)})


def _expand(given: str) -> list[str]:
    names = list(_braces(given))
    shards = _checked(names, given) if len(names) > 1 else _match(given)
    if not shards:
        raise ConfigError(
            f"input: {given} matches no shard; give a .tar, .tgz, .parquet, .csv, .tsv or .jsonl file, "
            f"a folder of them, or a glob"
        )
    return shards


def _match(name: str) -> list[str]:
    if name.endswith(_SUFFIXES) and exists(name):
        return [name]
    if glob.has_magic(name):
        return [path for path in _glob(name) if path.endswith(_SUFFIXES)]
    names = list_files(name)
    for kind in _KINDS:
        if shards := [join(name, shard) for shard in names if shard.endswith(kind)]:
            return shards
    return []


def _checked(names: list[str], given: str) -> list[str]:
    """Return the files of a range, of which none may be missing. One listing serves a folder, however many they are."""
    folders = {name.rpartition("/")[0] for name in names}
    there = {folder: set(list_files(folder or ".")) for folder in folders}
    missing = [name for name in names if name.rpartition("/")[2] not in there[name.rpartition("/")[0]]]
    if missing:
        raise ConfigError(
            f"input: {given} names {len(names)} files, {len(missing)} are missing, first {missing[0]}; "
            f"narrow the range, or use a glob, which takes what is there"
        )
    return names


def _glob(pattern: str) -> list[str]:
    if "://" not in pattern:
        return glob.glob(pattern, recursive=True)  # noqa: PTH207 (the pattern may be absolute, relative or have **)
    return find_files(pattern)


def _braces(pattern: str) -> Iterator[str]:
    """Yield the pattern with its first braces replaced by each thing they list, and so on for the others."""
    found = _BRACES.search(pattern)
    if not found:
        yield pattern
        return
    for choice in _choices(found[1], pattern):
        yield from _braces(pattern[: found.start()] + choice + pattern[found.end() :])


def _choices(inside: str, pattern: str) -> Sequence[str]:
    """Return what braces list: a,b,c or 000..127, as wide as its first number is written."""
    limits = _RANGE.fullmatch(inside)
    if not limits:
        return inside.split(",")
    first, last = int(limits[1]), int(limits[2])
    if not first <= last < first + _MAX_RANGE:
        raise ConfigError(f"input: {pattern}: the range {inside} must go upwards, by at most {_MAX_RANGE}")
    return [str(number).zfill(len(limits[1])) for number in range(first, last + 1)]
