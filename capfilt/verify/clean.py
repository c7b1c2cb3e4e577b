"""Check clean shards against their own markers, and against the ledger and the policy that they follow from."""

import hashlib
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from capfilt import storage
from capfilt.config import loads
from capfilt.errors import CapfiltError
from capfilt.export import ENDINGS, SIDECAR, Exported, clean_content, manifest_table, read_stats
from capfilt.parquet import read_parquet
from capfilt.records import Shard
from capfilt.runs import Run, Selection

_REMEDY = "remove the file and export again"


def verify_clean(run: Run, shards: Sequence[Shard], sound: Collection[str]) -> Iterator[str]:
    """Yield what is wrong with the clean folders of a run.

    Args:
        run: the run.
        shards: those that each folder should hold.
        sound: ids of the shards whose ledger is intact, so that the clean shard can be compared with it.
    """
    root = storage.join(run.root, "clean")
    for name in storage.list_files(root):
        yield f"{storage.join(root, name)}: belongs to no export"
    for name in storage.list_folders(root):
        folder = storage.join(root, name)
        path = storage.join(folder, "policy.yaml")
        try:
            selection = loads(Selection, storage.read_bytes(path).decode(), path)
        except FileNotFoundError:
            yield f"{path}: is missing; export again under the same policy"
            continue
        except (OSError, ValueError, CapfiltError) as error:
            told = " ".join(str(error).split())
            yield f"{told if path in told else f'{path}: {told}'}; export again under the same policy"
            continue
        if selection.folder != name:
            yield f"{path}: is the policy of the folder {selection.folder}; export again under that of {name}"
            continue
        yield from _verify_folder(run, folder, shards, sound, selection)


def _verify_folder(
    run: Run, folder: str, shards: Sequence[Shard], sound: Collection[str], selection: Selection
) -> Iterator[str]:
    files, folders = storage.list_entries(folder)
    expected = {"policy.yaml", "manifest.parquet", "_SUCCESS"}
    exported = []
    for shard in shards:
        expected |= {f"{shard.id}{ending}" for ending in ENDINGS}
        if f"{shard.id}_stats.json" not in files:
            yield f"{folder}: shard {shard.id} is not exported; export again"
            continue
        try:
            stats = read_stats(folder, shard.id)
            exported.append(stats)
            broken = list(_verify_files(storage.join(folder, shard.id), stats))
            yield from broken
            if shard.id in sound and not broken:
                yield from _verify_content(run, shard, storage.join(folder, shard.id), stats, selection)
        except (OSError, CapfiltError, pa.ArrowInvalid) as error:
            yield str(error) if folder in str(error) else f"{storage.join(folder, shard.id)}: {error}"
    for name in sorted({*files, *folders} - expected):
        yield f"{storage.join(folder, name)}: belongs to no exported shard"
    yield from _verify_manifest(folder, exported)


def _verify_files(stem: str, stats: Exported) -> Iterator[str]:
    """Yield which files are not those that the marker describes."""
    for path, expected in {f"{stem}.tar": stats.sha256, f"{stem}.parquet": stats.sidecar_sha256}.items():
        try:
            with storage.open_input(path) as file:
                digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # BinaryIO states no readinto
        except FileNotFoundError:
            yield f"{path}: is missing; export again"
            continue
        if (found := digest.hexdigest()) != expected:
            yield f"{path}: has sha256 {found}, but {expected} was written; remove its _stats.json and export again"


def _verify_content(run: Run, shard: Shard, stem: str, stats: Exported, selection: Selection) -> Iterator[str]:
    """Yield where a clean shard differs from what the ledger and the policy give."""
    if stats.models != run.models:
        yield f"{stem}_stats.json: was written for models {stats.models!r}, the run has {run.models!r}; {_REMEDY}"
    rows, counts = clean_content(run, shard, selection)
    for name, value in counts.items():
        if getattr(stats, name) != value:
            stated = getattr(stats, name)
            yield f"{stem}_stats.json: states {name} {stated}, ledger and policy give {value}; {_REMEDY}"
    sidecar = read_parquet(storage.read_bytes(f"{stem}.parquet"))
    if not sidecar.equals(pa.Table.from_pylist(rows, SIDECAR)):
        yield f"{stem}.parquet: its rows are not what ledger and policy give; remove its _stats.json and export again"


def _verify_manifest(folder: str, exported: Sequence[Exported]) -> Iterator[str]:
    for name in ("manifest.parquet", "_SUCCESS"):
        if not storage.exists(storage.join(folder, name)):
            yield f"{storage.join(folder, name)}: is missing, so the export is not finished; export again"
            return
    path = storage.join(folder, "manifest.parquet")
    data = storage.read_bytes(path)
    if hashlib.sha256(data).hexdigest().encode() != storage.read_bytes(storage.join(folder, "_SUCCESS")).strip():
        yield f"{path}: is not the one whose hash is in _SUCCESS; export again"
        return
    if not read_parquet(data).equals(manifest_table(exported)):
        yield f"{path}: does not list the shards of the folder as they are; export again"
