"""Expand what a user names (files, folders, globs, {000..127} ranges, URLs) to shards."""

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from capfilt.display import counted, few, listed
from capfilt.errors import ConfigError
from capfilt.shards.grouping import split_name
from capfilt.shards.listing import LIST_SUFFIXES
from capfilt.shards.parquet import TAR_SUFFIXES
from capfilt.storage import absolute, exists, find_files, join, list_files, list_folders, local_path

_KINDS: tuple[tuple[str, ...], ...] = (TAR_SUFFIXES, (".parquet",), LIST_SUFFIXES)
_SUFFIXES = tuple(suffix for kind in _KINDS for suffix in kind)
_SHARD = re.compile(r"\.(tar(\.(gz|bz2|xz|zst|lz4))?|tgz|parquet)$", re.IGNORECASE)  # including those that are not read
_READ = f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}, in small letters"
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAX_RANGE = 10_000_000

logger = logging.getLogger(__name__)


def find_shards(inputs: Sequence[str], key: str = "input") -> list[str]:
    """Return the shards that the inputs name, sorted, each once even if inputs name it by several paths.

    Braces are expanded first, and each name that they give is a file, a folder or a glob. The name of an existing
    file or folder is taken literally, even if it has characters of a glob.

    A folder's shards are its tars; its Parquet files if it has no tar, since next to tars they are tables
    without images; its lists if it has neither. Only a glob with ** searches subfolders. A glob means the shards that
    it matches or, if there are none, those of the folders that it matches. A warning lists the shards that are named
    again by another path, such as a link to their folder.

    Args:
        inputs: what a user names.
        key: the setting that holds them, for messages.

    Raises:
        ConfigError: an input is empty or matches nothing, a file of a range is missing, a folder is a run folder, or a
            path is not UTF-8.
    """
    named = {absolute(shard): shard for given in inputs for shard in _expand(given, key)}
    found: dict[str, str] = {}
    twice: list[str] = []
    for place, shard in zip(canonical_urls(list(named)), named.values(), strict=True):
        if found.setdefault(place, shard) is not shard:
            twice.append(f"{shard} is {found[place]}")
    if twice:
        told = f"{counted(len(twice), 'shard')} named again by another path, and taken once"
        logger.warning("%s: %s: %s", key, told, "; ".join(few(twice)))
    for path in map(absolute, found.values()):
        if (readable := path.encode(errors="backslashreplace").decode()) != path:  # no table could hold it
            raise ConfigError(f"{key}: {readable} is not valid UTF-8; rename the file, or its folder")
    return sorted(found.values())


def canonical_urls(urls: Sequence[str]) -> list[str]:
    """Return the canonical form of each URL: one for all paths to its folder, whatever links or .. they go through."""
    parts = [absolute(url).rpartition("/") for url in urls]
    folders = {folder for folder, _, _ in parts}
    real = {folder: folder if "://" in folder else str(Path(folder or "/").resolve()) for folder in folders}
    return [join(real[folder], name) for folder, _, name in parts]


def _expand(given: str, key: str) -> Iterator[str]:
    names = list(_braces(given, key))
    ranges = any(map(_RANGE.fullmatch, _BRACES.findall(given)))  # even one of a single number is meant as a range
    if exists(given) or (len(names) == 1 and not ranges):
        names = [given]
    if not all(name.strip() for name in names):
        raise ConfigError(f"{key}: {given!r} is empty, as an unset variable of the shell makes it; give a value")
    files = [name for name in names if name.endswith(_SUFFIXES) and not glob.has_magic(name)] if len(names) > 1 else []
    yield from _checked(files, given, key)
    checked = set(files)
    for name in (name for name in names if name not in checked):
        shards = _match(name, key)
        if not shards:
            of = "" if name == given else f", of {given},"
            raise ConfigError(f"{key}: {_placed(name)}{of} matches no shard{_told(name)}")
        yield from shards


def _match(name: str, key: str) -> list[str]:
    if name.endswith(_SUFFIXES) and exists(name):
        return [name]
    if not glob.has_magic(name) or exists(name):
        return _of_folder(name, key)
    found = _glob(name)
    shards = [path for path in found if path.endswith(_SUFFIXES)]
    if shards:
        _warn_of_unread(found, name, key)
    return shards or [shard for path in found for shard in _of_folder(path, key)]


def _of_folder(folder: str, key: str) -> list[str]:
    names = list_files(folder)
    for kind in _KINDS:
        if shards := [join(folder, name) for name in names if name.endswith(kind)]:
            if kind is LIST_SUFFIXES and "run.yaml" in names:  # the list is the journal of a run
                raise ConfigError(f"{key}: {folder} is the folder of a run; {_clean(folder)}")
            _warn_of_unread(names, folder, key)
            return shards
    return []


def _warn_of_unread(names: Sequence[str], place: str, key: str) -> None:
    """Warn of files next to shards that are left out for their capitals or their compression alone."""
    unread = [name for name in names if not name.endswith(_SUFFIXES) and _SHARD.search(name)]
    if unread:
        told = "left out, since names of shards end in"
        logger.warning("%s: %s: %s %s: %s", key, place, told, _READ, ", ".join(few(unread)))


def _clean(run: str) -> str:
    """Return where the clean shards of a run are, as the end of a sentence."""
    clean = join(run, "clean")
    folders = [join(clean, name) for name in list_folders(clean)]
    return f"its clean shards are in {' and '.join(folders) or f'{clean}, when it is done'}"


def _told(name: str) -> str:
    """Return the end of the message that a name matches no shard: what it holds instead, and what is read."""
    if name.endswith(_SUFFIXES) and not glob.has_magic(name):
        return "; there is no such file"
    files = [found for found in list_files(name) if found != name.rpartition("/")[2]]  # stores list a file as in itself
    names = [*(f"{folder}/" for folder in list_folders(name)), *files]  # folders: as in RUN/clean
    holds = f"; it holds {', '.join(listed(names, 3, '...'))}" if names else ""
    if any(split_name(found)[1] == "image" for found in files):
        holds += "; pack the images with their texts as tars, or write a list of them"
    if name.endswith(".json") and exists(name):
        holds = "; write its entries as the lines of a .jsonl (jq -c '.[]')"
    return f"{holds}; give a file whose name ends in {_READ}, a folder of such files, or a glob"


def _placed(name: str) -> str:
    """Return a name, with its absolute path if it is relative: the current folder may be the mistake."""
    local = local_path(name)
    return name if local is None or local.is_absolute() else f"{name} ({absolute(name)})"


def _checked(names: list[str], given: str, key: str) -> list[str]:
    """Return the files of a range, none of which may be missing. Each folder is listed once."""
    folders = {name.rpartition("/")[0] for name in names}
    there = {folder: set(list_files(folder or ".")) for folder in folders}
    missing = [name for name in names if name.rpartition("/")[2] not in there[name.rpartition("/")[0]]]
    if missing:
        raise ConfigError(
            f"{key}: {given} names {counted(len(names), 'file')}, {len(missing):,} missing, "
            f"first {_placed(missing[0])}; narrow the range, or use a glob, which takes what is there"
        )
    return names


def _glob(pattern: str) -> list[str]:
    if "://" not in pattern:
        return glob.glob(pattern, recursive=True)  # noqa: PTH207 (the pattern may be absolute, relative or have **)
    return find_files(pattern)


def _braces(pattern: str, key: str) -> Iterator[str]:
    """Yield a pattern with each combination of the choices that its braces list."""
    found = _BRACES.search(pattern)
    if not found:
        yield pattern
        return
    for choice in _choices(found[1], pattern, key):
        yield from _braces(pattern[: found.start()] + choice + pattern[found.end() :], key)


def _choices(inside: str, pattern: str, key: str) -> Sequence[str]:
    """Return what braces list: a,b,c or 000..127, zero-padded as its first number is."""
    limits = _RANGE.fullmatch(inside)
    if not limits:
        return inside.split(",")
    first, last = int(limits[1]), int(limits[2])
    if not first <= last < first + _MAX_RANGE:
        raise ConfigError(f"{key}: {pattern}: the range {inside} must go upwards, by at most {_MAX_RANGE}")
    return [str(number).zfill(len(limits[1])) for number in range(first, last + 1)]
