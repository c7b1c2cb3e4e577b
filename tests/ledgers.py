"""Builders of small runs and ledgers, written by hand."""

import hashlib
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from capfilt.config import BootstrapConfig, ExportConfig
from capfilt.export import export_shard, finish_export
from capfilt.fingerprint import fingerprint
from capfilt.ledger import candidates_table, fold, write_unit
from capfilt.records import Candidate, SampleRecord, Shard, Unit
from capfilt.runs import Run, start_run
from capfilt.shards import open_shard, write_tar

CHECKPOINTS = {"captioner": "c0ffee", "filter": "f117e4"}
SHARD = Shard("00000", "in/00000.tar", 1000, "d16e57", 4)


def config(folder: Path | str, **changes: Any) -> BootstrapConfig:
    settings = {"input": ["in"], "run": f"{folder}/run", "captioner": "c", "filter": "f"}
    return BootstrapConfig.model_validate(settings | changes)


def new_run(folder: Path | str, shards: list[Shard] | None = None) -> Run:
    """Return a planned run."""
    run = start_run(config(folder), CHECKPOINTS)
    run.write_plan([SHARD] if shards is None else shards)
    return run


def record(position: int, **changes: Any) -> SampleRecord:
    values = {
        "position": position,
        "key": f"key{position}",
        "image_sha256": f"{position:064x}",
        "width": 8,
        "height": 6,
        "format": "JPEG",
        "url": f"http://example.org/{position}",
        "metadata": "",
        "status": "ok",
        "text_status": "ok",
        "error": "",
    }
    return SampleRecord(**(values | changes))


def web(position: int, itm: float | None = 0.75, text: str = "a web text", **changes: Any) -> Candidate:
    return Candidate(position, f"key{position}", "web", 0, text, itm=itm, **({"itc": 0.25} | changes))


def synthetic(
    position: int, itm: float | None = 0.5, text: str = "a caption", index: int = 0, **changes: Any
) -> Candidate:
    values = {"captioner": "c0ffee", "seed": 7, "tokens": 5, "logprob": -2.5, "itc": 0.125}
    return Candidate(position, f"key{position}", "synthetic", index, text, itm=itm, **(values | changes))


def commit(
    run: Run, shard: Shard, cuts: list[int], records: list[SampleRecord], candidates: list[Candidate]
) -> list[Unit]:
    """Commit a shard's rows in units between the cuts, without folding them."""
    units = [Unit(shard, lo, hi) for lo, hi in pairwise(cuts)]
    for unit in units:
        inside = range(unit.lo, unit.hi)
        write_unit(
            run,
            unit,
            [record for record in records if record.position in inside],
            candidates_table(shard.id, [candidate for candidate in candidates if candidate.position in inside]),
            {"caption": 0.5, "score": 0.25},
        )
    return units


def image(position: int, kind: str = "JPEG") -> bytes:
    """Return a small image of its own for each position."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (position * 40 % 256, 99, 7)).save(buffer, kind)
    return buffer.getvalue()


def input_shard(folder: Path | str, images: list[bytes], keys: list[str] | None = None, id_: str = "00000") -> Shard:
    """Write an input tar and return it as it would be planned."""
    path = Path(folder, f"{id_}.tar")
    keys = keys or [f"key{position}" for position in range(len(images))]
    write_tar(path, [(f"{key}.jpg", data) for key, data in zip(keys, images, strict=True)])
    reader = open_shard(str(path))
    return Shard(id_, str(path), reader.size, reader.digest, reader.samples)


def records_of(shard: Shard) -> list[SampleRecord]:
    """Return a record for each sample of an input shard, as if all could be scored."""
    return [
        record(sample.position, key=sample.key, image_sha256=hashlib.sha256(sample.image).hexdigest())
        for sample in open_shard(shard.url).read(0, shard.samples)
    ]


def complete(run: Run, shard: Shard, records: list[SampleRecord], candidates: list[Candidate]) -> None:
    """Commit a shard as one unit and fold it."""
    fold(run, shard, commit(run, shard, [0, shard.samples], records, candidates))


def exported_run(folder: Path | str) -> tuple[Run, list[Shard]]:
    """Return a run of two shards that is bootstrapped and exported, and the shards."""
    shards = [input_shard(folder, [image(n) for n in range(size)], id_=f"0000{size}") for size in (3, 4)]
    run = new_run(folder, shards)
    export = ExportConfig(run=run.root)
    for shard in shards:
        complete(
            run,
            shard,
            records_of(shard),
            [web(0, 0.9), synthetic(0, 0.1), synthetic(1, 0.6), web(2, 0.2), synthetic(2, 0.8)],
        )
        export_shard(run, shard, export)
    finish_export(run, shards, export)
    return run, shards


def edit(path: Path | str, **changes: Any) -> None:
    """Change values of a commit record or a marker, as a faulty program would have written them."""
    path = Path(path)
    values = json.loads(path.read_text()) | changes
    if values.pop("check", None):
        values["check"] = fingerprint(values)
    path.write_text(json.dumps(values))
