"""What do commit, hashing and verification cost an image, compared with its models?

    python benchmarks/cost_of_safety.py --json cost_of_safety.json

One shard goes through the run's own functions with texts that a model could have written: its index is read, images
are hashed and their headers looked at, units are committed, the shard is folded, the run verified. Images are JPEGs of
noise of about --kib. Reports CPU time of this process, the least of --rounds, in microseconds an image. Planning, which
any run needs, and decoding the same images are timed too, and are no cost of safety.

It is compared with what models take: --cpu-seconds an image on a CPU (docs/performance.md) and --gpu-rate images a
second on a GPU. A GPU does not wait for this work: hashing is done in the threads that decode, and a unit is committed
while the next one has the models. So at the GPU's speed the cost is given as a share of one core, and of the cores that
come with a GPU.
"""

import argparse
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe
from PIL import Image

from capfilt.config import BootstrapConfig
from capfilt.images import decode
from capfilt.indexing import index_shard, open_planned
from capfilt.ledger import candidates_table, write_unit
from capfilt.ledger.completion import complete_shard
from capfilt.records import Candidate, SampleRecord, Unit
from capfilt.runs import Run, start_run
from capfilt.shards import write_tar
from capfilt.shards.headers import parse_header
from capfilt.verify import verify

PLANNING, DECODING = "walked and indexed when planned", "decoded"
UNIT = 4096  # samples, as on a GPU
DECODED = 64  # images that are decoded, of all


def main() -> None:
    options = _options()
    rounds = [once(options) for _ in range(options.rounds)]
    costs = {name: round(min(costs[name] for costs in rounds), 2) for name in rounds[0]}
    beside = {name: costs.pop(name) for name in (PLANNING, DECODING)}
    total = sum(costs.values())
    result = {
        "microseconds_an_image": costs,
        "total": round(total, 2),
        "beside": beside,
        "share_of_a_cpu_run": total / 1e6 / options.cpu_seconds,
        "share_of_one_core_at_gpu_rate": total / 1e6 * options.gpu_rate,
        "share_of_the_cores_at_gpu_rate": total / 1e6 * options.gpu_rate / options.cores,
    }
    result |= {name: getattr(options, name) for name in ("samples", "kib", "cpu_seconds", "gpu_rate", "cores", "load")}
    result |= describe("cpu", "pyarrow", "torch")
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def once(options: argparse.Namespace) -> dict[str, float]:
    """Return what each step costs an image."""
    picture = noise(options.kib)
    costs: dict[str, float] = {}

    def timed(name: str, step: Callable[[], object], count: int = options.samples) -> object:
        start = time.process_time()
        value = step()
        costs[name] = (time.process_time() - start) * 1e6 / count
        return value

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, run, config = prepare(folder, picture, options.samples)
        shard = run.plan()[0]
        timed(PLANNING, lambda: index_shard(run, "00000", str(path)))
        units = [Unit(shard, lo, min(lo + UNIT, shard.samples)) for lo in range(0, shard.samples, UNIT)]
        timed("index read, headers looked at", lambda: [look(run, unit) for unit in units])
        timed("images hashed", lambda: [hashlib.sha256(picture).hexdigest() for _ in range(options.samples)])
        rows = [(unit, records(unit), candidates(unit)) for unit in units]
        timed("units committed", lambda: [commit(run, *row) for row in rows])
        timed("shard folded", lambda: complete_shard(run, shard, config))
        problems = timed("run verified", lambda: verify(run))
        assert problems == []
        timed(DECODING, lambda: [decode(picture, config.images) for _ in range(DECODED)], DECODED)
    return costs


def prepare(folder: Path, picture: bytes, samples: int) -> tuple[Path, Run, BootstrapConfig]:
    """Write a shard, and open a run over it."""
    settings = {"input": [str(folder)], "run": str(folder / "run"), "captioner": "c", "filter": "f", "batch_size": 64}
    config = BootstrapConfig.model_validate(settings | {"unit_size": UNIT})
    run = start_run(config, {"captioner": "c0ffee", "filter": "f117e4"})
    members = ((f"{n:08d}.{suffix}", content) for n in range(samples) for suffix, content in parts(n, picture))
    write_tar(folder / "00000.tar", members)
    run.write_plan([index_shard(run, "00000", str(folder / "00000.tar"))])
    return folder / "00000.tar", run, config


def parts(number: int, picture: bytes) -> list[tuple[str, bytes]]:
    """Return the members of a sample."""
    return [("jpg", picture), ("txt", text(number).encode()), ("json", metadata(number).encode())]


def look(run: Run, unit: Unit) -> None:
    """Do what reading a unit does for safety's sake: find its members by the index and look at their headers."""
    reader = open_planned(run, unit.shard)
    entries = reader._entries(unit.lo, unit.hi)  # type: ignore[attr-defined]
    with Path(unit.shard.url).open("rb") as file:
        block = file.read(512)
    for _ in range(3 * len(entries)):
        parse_header(block)


def text(number: int) -> str:
    """Return what the web says of a sample."""
    words = hashlib.sha256(str(number).encode()).hexdigest()
    return " ".join(words[at : at + 6] for at in range(0, 60, 6))


def metadata(number: int) -> str:
    """Return a sample's JSON."""
    return json.dumps({"url": f"https://site{number % 997}.example/{number}.jpg", "similarity": 0.3, "hash": number})


def records(unit: Unit) -> list[SampleRecord]:
    """Return the rows of a unit's samples."""
    return [
        SampleRecord(
            position=position,
            key=f"{position:08d}",
            image_sha256=hashlib.sha256(str(position).encode()).hexdigest(),
            width=512,
            height=384,
            format="JPEG",
            url=f"https://site{position % 997}.example/{position}.jpg",
            metadata=metadata(position),
            status="ok",
            text_status="ok",
            error="",
        )
        for position in range(unit.lo, unit.hi)
    ]


def commit(run: Run, unit: Unit, samples: list[SampleRecord], texts: list[Candidate]) -> None:
    """Commit a unit, from its rows as the models leave them."""
    write_unit(run, unit, samples, candidates_table(unit.shard.id, texts), {})


def candidates(unit: Unit) -> list[Candidate]:
    """Return two texts for each sample of a unit, with scores of their own."""
    rng = np.random.default_rng(unit.lo)
    rows = []
    for position in range(unit.lo, unit.hi):
        key, (first, second) = f"{position:08d}", rng.random(2).tolist()
        rows.append(Candidate(position, key, "web", 0, text(position), itm=first, itc=first / 3))
        caption = f"a picture of a thing{position % 5000} on a table"
        rows.append(
            Candidate(position, key, "synthetic", 0, caption, "c0ffee", 0, position, 9, -first, second, second / 3)
        )
    return rows


def noise(kib: int) -> bytes:
    """Return a JPEG of 512 x 384 of about so many KiB."""
    coarse = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((512, 384))
    grain = np.random.default_rng(1).normal(0, 6, (384, 512, 3))
    image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    sizes = []
    for quality in range(98, 5, -4):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        sizes.append(file.getvalue())
    return min(sizes, key=lambda data: abs(len(data) - kib * 1024))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="of the shard (10000)")
    parser.add_argument("--kib", type=int, default=50, help="of an image (50)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the quickest counts (3)")
    parser.add_argument("--cpu-seconds", type=float, default=2.02, help="that models take for an image on a CPU (2.02)")
    parser.add_argument("--gpu-rate", type=float, default=1400, help="images a second of models on a GPU (1400)")
    parser.add_argument("--cores", type=int, default=16, help="of a machine with one GPU (16)")
    parser.add_argument("--load", default="unknown", help="what else the machine does, for the record")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
