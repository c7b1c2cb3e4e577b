"""Clean shards: the samples with a kept text, and their images as they came.

    00042.tar          for each image: .jpg, .txt (its best text) and .json (all kept texts, and where they came from)
    00042.parquet      the same without the images, a row for each
    00042_stats.json   counts and hashes, written last: where all three are, the shard is finished
    manifest.parquet   a row for each shard, and _SUCCESS with its hash: written when all shards are finished

A shard's bytes follow from its ledger, its images and the policy. It is a valid input shard, for capfilt and other
readers: all fields are always present and of one type, since datasets infers the types from the first five samples.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from capfilt import storage
from capfilt.background import map_in_threads
from capfilt.config import ExportConfig, dump
from capfilt.errors import CapfiltError, RunError, ShardError
from capfilt.indexing import open_planned
from capfilt.ledger import count_values, read_candidates, read_samples, table_hashes
from capfilt.parquet import parquet_bytes
from capfilt.policy import SOURCES, select
from capfilt.records import Shard
from capfilt.runs import Run, Selection
from capfilt.shards import write_tar
from capfilt.texts import clean

Row = dict[str, Any]  # of a table, by column

ENDINGS = ("_stats.json", ".tar", ".parquet")
"""How the files of a clean shard end."""

IMAGE_MEMBER = "jpg"  # whatever the format, as img2dataset does: a loader needs one suffix for all images

SIDECAR = pa.schema(
    {
        "key": pa.string(),  # in the clean shard
        "original_key": pa.string(),
        "position": pa.int64(),  # in the input shard
        "sha256": pa.string(),
        "url": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
        "web_caption": pa.string(),  # the best kept text that came with the image; empty when none is kept
        "syn_caption": pa.string(),  # the best kept synthetic text, likewise
        "texts": pa.list_(pa.string()),  # all kept texts, the best first
        "sources": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),  # P(match) of each
        "metadata": pa.string(),  # the sample's JSON as it came; empty when there was none
    }
)

MANIFEST = pa.schema(
    {"shard": pa.string(), "samples": pa.int64(), "texts": pa.int64(), "bytes": pa.int64(), "sha256": pa.string()}
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a clean shard holds: the content of its _stats.json."""

    shard: str  # id
    samples: int
    texts: int
    bytes: int  # of the tar
    sha256: str  # of the tar
    sidecar_sha256: str
    models: str  # fingerprint of the models whose scores were used
    kept: dict[str, int]  # texts by source
    rejected: dict[str, int]  # texts by reason


def export_shard(run: Run, shard: Shard, config: ExportConfig) -> Exported:
    """Write the clean shard of a complete input shard. A finished one is left as it is.

    Raises:
        RunError: the shard's ledger is not complete, or was begun anew meanwhile, such as by --retry-quarantined.
        ShardError: the input shard, or an image in it, is not the one that was scored.
    """
    folder = run.clean(config)
    stem = storage.join(folder, shard.id)
    if all(storage.exists(f"{stem}{ending}") for ending in ENDINGS):
        return read_stats(folder, shard.id)
    if not storage.exists(policy := storage.join(folder, "policy.yaml")):  # stores limit writes to one file
        storage.publish(policy, dump(Selection.of(config)).encode())
    ledger = table_hashes(run, shard)
    try:
        return _write(run, shard, config, ledger)
    except (CapfiltError, OSError):
        _require_same(run, shard, ledger)  # a new ledger is the cause, and the better message
        raise


def _write(run: Run, shard: Shard, config: ExportConfig, ledger: Mapping[str, str]) -> Exported:
    """Write a clean shard from the tables that have these hashes."""
    folder = run.clean(config)
    stem = storage.join(folder, shard.id)
    rows, counts = clean_content(run, shard, Selection.of(config))
    with storage.staged(f"{stem}.tar") as path:
        write_tar(path, _members(run, shard, rows))
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        _require_same(run, shard, ledger)  # another export may have written the tar of a new ledger
    sidecar = parquet_bytes(pa.Table.from_pylist(rows, SIDECAR))
    storage.publish(f"{stem}.parquet", sidecar)
    exported = Exported(
        shard=shard.id,
        bytes=size,
        sha256=digest,
        sidecar_sha256=hashlib.sha256(sidecar).hexdigest(),
        models=run.models,
        **counts,
    )
    storage.publish(f"{stem}_stats.json", json.dumps(asdict(exported), indent=1).encode() + b"\n")
    if table_hashes(run, shard) != ledger:  # a release of the shard removes its ledger first, and then the markers
        storage.remove(f"{stem}_stats.json")
        storage.remove(storage.join(folder, "_SUCCESS"))
        _require_same(run, shard, ledger)
    return exported


def _require_same(run: Run, shard: Shard, ledger: Mapping[str, str]) -> None:
    if table_hashes(run, shard) != ledger:
        raise RunError(f"{shard.url}: its bootstrap was begun anew during the export; let it end, and export again")


def finish_export(run: Run, shards: Sequence[Shard], config: ExportConfig) -> list[Exported]:
    """Write the policy and the manifest of these shards, then _SUCCESS, which marks the export as whole.

    Raises:
        RunError: some of the shards are not exported.
    """
    folder = run.clean(config)
    _require_all(folder, shards)
    exported = map_in_threads(lambda shard: read_stats(folder, shard.id), shards)
    manifest = parquet_bytes(manifest_table(exported))
    storage.publish(storage.join(folder, "policy.yaml"), dump(Selection.of(config)).encode())
    storage.publish(storage.join(folder, "manifest.parquet"), manifest)
    storage.publish(storage.join(folder, "_SUCCESS"), hashlib.sha256(manifest).hexdigest().encode() + b"\n")
    try:
        _require_all(folder, shards)  # a release of a shard removes its marker first, and then _SUCCESS
    except RunError:
        storage.remove(storage.join(folder, "_SUCCESS"))
        raise
    return exported


def _require_all(folder: str, shards: Sequence[Shard]) -> None:
    finished = finished_shards(folder)
    missing = [shard.url for shard in shards if shard.id not in finished]
    if missing:
        some = ", ".join(missing[:10])
        raise RunError(f"{folder}: {len(missing)} of {len(shards)} shards are not exported ({some}); export again")


def finished_shards(folder: str) -> set[str]:
    """Return the ids of the shards of a clean folder of which all files are there, by one listing."""
    names = set(storage.list_files(folder))
    ids = {name.removesuffix("_stats.json") for name in names if name.endswith("_stats.json")}
    return {id_ for id_ in ids if names.issuperset(f"{id_}{ending}" for ending in ENDINGS)}


def read_stats(folder: str, shard: str) -> Exported:
    """Return what a finished clean shard holds.

    Raises:
        RunError: its _stats.json is missing, or was not written by this version.
    """
    path = storage.join(folder, f"{shard}_stats.json")
    try:
        values = json.loads(storage.read_bytes(path))
        return Exported(**{field.name: values[field.name] for field in fields(Exported)})
    except FileNotFoundError:
        raise RunError(f"{path}: is missing; export again") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: does not describe a clean shard ({error!r}); remove it and export again") from None


def manifest_table(exported: Sequence[Exported]) -> pa.Table:
    """Return the manifest of these clean shards."""
    return pa.Table.from_pylist([{name: getattr(each, name) for name in MANIFEST.names} for each in exported], MANIFEST)


def clean_content(run: Run, shard: Shard, wanted: Selection) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of the sidecar (scored samples with a kept text; all with keep_empty) and Exported's counts."""
    selection = select(read_candidates(run, shard), wanted.policy)
    chosen = selection.filter(selection["kept"])
    kept: dict[int, list[Row]] = defaultdict(list)
    for row in chosen.to_pylist():
        kept[row["position"]].append(row)
    rows = [
        _row(sample, kept[sample["position"]])
        for sample in read_samples(run, shard).to_pylist()
        if sample["status"] == "ok" and (wanted.keep_empty or sample["position"] in kept)
    ]
    return rows, {
        "samples": len(rows),
        "texts": sum(len(row["texts"]) for row in rows),
        "kept": count_values(chosen["source"]),
        "rejected": count_values(selection["reason"].drop_null()),
    }


def _row(sample: Row, candidates: list[Row]) -> Row:
    best = sorted(candidates, key=lambda c: (-c["itm"], SOURCES.index(c["source"]), c["caption_index"]))
    texts = [clean(candidate["text"]) for candidate in best]
    sources = [candidate["source"] for candidate in best]
    own = [text for text, source in zip(texts, sources, strict=True) if source != "synthetic"]
    synthetic = [text for text, source in zip(texts, sources, strict=True) if source == "synthetic"]
    return {
        "key": f"{sample['shard']}{sample['position']:09d}",  # the original key may be a path, or not unique
        "original_key": sample["key"],
        "position": sample["position"],
        "sha256": sample["image_sha256"],
        "url": sample["url"],
        "width": sample["width"],
        "height": sample["height"],
        "format": sample["format"],
        "web_caption": own[0] if own else "",
        "syn_caption": synthetic[0] if synthetic else "",
        "texts": texts,
        "sources": sources,
        "scores": [candidate["itm"] for candidate in best],
        "metadata": sample["metadata"],
    }


def _members(run: Run, shard: Shard, rows: Sequence[Row]) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a clean tar, with the images from the input shard."""
    reader = open_planned(run, shard)
    chosen = {row["position"]: row for row in rows}
    for sample in reader.read(0, shard.samples):
        row = chosen.get(sample.position)
        if row is None:
            continue
        if hashlib.sha256(sample.image).hexdigest() != row["sha256"]:
            raise ShardError(f"{shard.url}: {sample.key}: is not the image that was scored; put back the file")
        yield f"{row['key']}.{IMAGE_MEMBER}", sample.image
        yield f"{row['key']}.txt", (row["texts"] or [""])[0].encode()
        yield f"{row['key']}.json", json.dumps(row, ensure_ascii=False).encode()
