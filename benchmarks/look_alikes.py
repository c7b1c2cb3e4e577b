"""How much of what was re-encoded, resized or cropped does a scan find, and how long does that take for many files?

    python benchmarks/look_alikes.py DATA --json look_alikes.json

DATA is a folder of photographs. Each is changed in some ways, and a change counts as found when the hashes of the two
are within the bits that `capfilt scan` allows. Pairs of different photographs that are as near are counted too. Then as
many hashes as --files, a twentieth of them near another, are scanned. Prints one JSON object with the figures, the
machine, versions and date.
"""

import argparse
import io
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from machine import describe
from PIL import Image

from capfilt.config import ImageLimits
from capfilt.images import decode
from capfilt.scan.alike import BITS, count_alike, hash_looks
from capfilt.scan.look import MIN_SIDE


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def smaller(image: Image.Image, times: int) -> Image.Image:
    return image.resize((max(1, image.width // times), max(1, image.height // times)), Image.Resampling.BICUBIC)


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = int(image.width * share), int(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


CHANGES: dict[str, Callable[[Image.Image], bytes]] = {
    "JPEG at quality 50": lambda image: encoded(image, quality=50),
    "half the size": lambda image: encoded(smaller(image, 2)),
    "a third of the size, WebP": lambda image: encoded(smaller(image, 3), "WEBP", 80),
    "15 % brighter": lambda image: encoded(image.point(lambda value: min(255, int(1.15 * value)))),
    "1 % cut off each side": lambda image: encoded(cropped(image, 0.01)),
    "2 % cut off each side": lambda image: encoded(cropped(image, 0.02)),
    "4 % cut off each side": lambda image: encoded(cropped(image, 0.04)),
    "mirrored": lambda image: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def looks(data: bytes) -> int:
    return hash_looks(decode(data, ImageLimits(), MIN_SIDE)) or 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photographs")
    parser.add_argument("--photographs", type=int, default=1000, help="that are changed (1000)")
    parser.add_argument("--files", type=int, default=1_000_000, help="hashes that are scanned (1000000)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    files = sorted(arguments.data.iterdir())[: arguments.photographs]
    hashes, found = [], dict.fromkeys(CHANGES, 0)
    for file in files:
        data = file.read_bytes()
        hashes.append(looks(data))
        image = Image.open(io.BytesIO(data)).convert("RGB")
        for name, change in CHANGES.items():
            found[name] += (hashes[-1] ^ looks(change(image))).bit_count() <= BITS
    figures = {
        "photographs": len(files),
        "bits": BITS,
        "found": {name: round(count / len(files), 3) for name, count in found.items()},
        "pairs_of_different_photographs": len(files) * (len(files) - 1) // 2,
        "of_which_near": near(np.array(hashes, np.uint64)),
        "counting": counting(arguments.files),
    }
    results = json.dumps(figures | describe("cpu", "capfilt", "duckdb", "imagehash", "pillow"), indent=2)
    print(results)
    if arguments.json:
        arguments.json.write_text(results + "\n")


def near(hashes: np.ndarray) -> int:
    return int(np.triu(np.bitwise_count(hashes[:, None] ^ hashes[None]) <= BITS, 1).sum())


def counting(files: int) -> dict[str, float]:
    """Return how long it takes to count what looks alike among so many files."""
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**64, files, np.uint64)
    hashes[: files // 20] = hashes[files // 20 : 2 * (files // 20)] ^ np.uint64(0b1011)
    table = pa.table({"looks": hashes, "sha256": [str(n) for n in range(files)]})
    start = time.perf_counter()
    with duckdb.connect() as connection:
        connection.register("images", table)
        alike = count_alike(connection, connection.table("images"))
    seconds, most = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"files": files, "alike": alike, "seconds": round(seconds, 1), "mib": round(most / 1024)}


if __name__ == "__main__":
    main()
