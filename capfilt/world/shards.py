"""The demo world as shards in img2dataset's layout, which users' shards have too.

A shard is NNNNN.tar with KEY.jpg, KEY.txt and KEY.json, a sidecar NNNNN.parquet with a row for each
attempted sample, and NNNNN_stats.json, which is written last and atomically. One download in fifty "failed":
such a sample has a row and no members. No file holds a time, so the same arguments give the same bytes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from capfilt.shards import write_tar
from capfilt.storage import publish
from capfilt.world.captions import true_captions
from capfilt.world.noise import NoiseRates, web_text
from capfilt.world.render import encode, render
from capfilt.world.scenes import scene_at, stream

FAILED_DOWNLOADS = 0.02
HUMAN_CAPTIONS = 5
MAX_SAMPLES = 10_000  # of a shard

_SIDECAR = pa.schema(
    {
        "url": pa.string(),
        "caption": pa.string(),
        "key": pa.string(),
        "status": pa.string(),
        "error_message": pa.string(),
        "width": pa.int64(),
        "height": pa.int64(),
        "original_width": pa.int64(),
        "original_height": pa.int64(),
        "exif": pa.string(),
        "sha256": pa.string(),
        "kind": pa.string(),
        "captions": pa.list_(pa.string()),
    }
)


@dataclass(frozen=True, slots=True)
class World:
    """What determines a split of the demo world."""

    seed: int
    split: str
    rates: NoiseRates | None = None  # None gives every image the captions of a person
    side: int = 64  # pixels


def write_world(folder: Path, world: World, samples: int, samples_per_shard: int = 1000) -> list[Path]:
    """Write a split as shards and return their tar files.

    Args:
        folder: made if absent.
        world: what the split holds.
        samples: attempted ones, failed downloads included.
        samples_per_shard: of all shards but the last.

    Raises:
        ValueError: a shard would hold more samples than four digits of a key can name.
    """
    if samples_per_shard > MAX_SAMPLES:
        raise ValueError(f"{samples_per_shard} samples in a shard; keys have room for {MAX_SAMPLES}, write more shards")
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, samples, samples_per_shard)
    return [
        _write_shard(folder, world, shard, range(start, min(start + samples_per_shard, samples)))
        for shard, start in enumerate(starts)
    ]


def _write_shard(folder: Path, world: World, shard: int, indices: range) -> Path:
    rows: list[dict[str, object]] = []
    members: list[tuple[str, bytes]] = []
    for position, index in enumerate(indices):
        key = f"{shard:05d}{position:04d}"
        row, files = _sample(world, index, key)
        rows.append(row)
        members += files
    tar = folder / f"{shard:05d}.tar"
    write_tar(tar, members)
    pq.write_table(pa.Table.from_pylist(rows, _SIDECAR), folder / f"{shard:05d}.parquet")
    publish(str(folder / f"{shard:05d}_stats.json"), json.dumps(_stats(rows), indent=4).encode())
    return tar


def _sample(world: World, index: int, key: str) -> tuple[dict[str, object], list[tuple[str, bytes]]]:
    """Return the sidecar row and the members of a sample; a failed download has no members."""
    scene = scene_at(world.seed, world.split, index)
    texts, kind = _texts(world, index)
    row: dict[str, object] = {
        "url": f"https://world.example/{world.split}/{world.seed}/{index}.jpg",
        "caption": texts[0],
        "key": key,
        "kind": kind,
        "captions": texts,
    }
    if stream(world.seed, world.split, index, "download").random() < FAILED_DOWNLOADS:
        return {**row, "status": "failed_to_download", "error_message": "HTTP Error 404: Not Found"}, []
    image = encode(render(scene, world.side))
    sides = dict.fromkeys(("width", "height", "original_width", "original_height"), world.side)
    row |= {"status": "success", **sides, "exif": "{}", "sha256": hashlib.sha256(image).hexdigest()}
    metadata = json.dumps({**row, "error_message": None, "scene": asdict(scene)}, indent=4)
    return row, [(f"{key}.jpg", image), (f"{key}.json", metadata.encode()), (f"{key}.txt", texts[0].encode())]


def _texts(world: World, index: int) -> tuple[list[str], str]:
    """Return a sample's texts, the one of its .txt file first, and their kind."""
    scene = scene_at(world.seed, world.split, index)
    rng = stream(world.seed, world.split, index, "texts")
    if world.rates is None:
        return true_captions(scene, rng, HUMAN_CAPTIONS), "human"
    other = scene_at(world.seed, f"{world.split}/other", index)
    text, kind = web_text(scene, other, rng, world.rates)
    return [text], kind


def _stats(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    failed = sum(row["status"] != "success" for row in rows)
    status = {"success": len(rows) - failed} | ({"HTTP Error 404: Not Found": failed} if failed else {})
    return {
        "count": len(rows),
        "successes": len(rows) - failed,
        "failed_to_download": failed,
        "failed_to_resize": 0,
        "duration": 0.0,
        "start_time": 0.0,
        "end_time": 0.0,
        "status_dict": status,
    }
