"""What looks alike: hashes against a comparison of all with all, and real photographs that were changed a little."""

import io
import random

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from capfilt.config import ImageLimits
from capfilt.images import decode
from capfilt.scan import alike
from capfilt.scan.alike import BITS, count_alike, hash_looks

pytest.importorskip("imagehash")


def counted(hashes: list[int | None], files: list[str] | None = None) -> int:
    names = files or [str(n) for n in range(len(hashes))]
    with duckdb.connect() as connection:
        connection.register("images", pa.table({"looks": pa.array(hashes, pa.uint64()), "sha256": names}))
        return count_alike(connection, connection.table("images"))


def by_comparison(hashes: list[int]) -> int:
    """Compare all with all: a hash counts when a smaller one is near, and each further file of a hash."""
    kinds = np.unique(np.array(hashes, np.uint64))
    distances = np.bitwise_count(kinds[:, None] ^ kinds[None])
    return int(np.triu(distances <= BITS, 1).any(axis=0).sum()) + len(hashes) - len(kinds)


def changed(hash_: int, bits: int, chance: random.Random) -> int:
    for bit in chance.sample(range(64), bits):
        hash_ ^= 1 << bit
    return hash_


@pytest.mark.parametrize("bits", range(8))
def test_near_hashes_are_found_wherever_their_bits_differ_and_others_are_not(bits):
    chance = random.Random(bits)
    firsts = [chance.getrandbits(64) for _ in range(200)]

    found = counted([*firsts, *(changed(first, bits, chance) for first in firsts)])

    assert found == (200 if bits <= BITS else 0)


def test_a_crowd_of_neighbours_is_counted_as_by_comparing_all_with_all():
    chance = random.Random(0)
    first = chance.getrandbits(64)
    hashes = [changed(first, chance.randint(0, 9), chance) for _ in range(400)]

    assert counted(hashes) == by_comparison(hashes)


def test_equal_files_and_images_that_tell_nothing_are_not_alike():
    assert counted([7, 7, None, None], ["a", "a", "b", "c"]) == 0
    assert counted([7, 7, 7], ["a", "b", "c"]) == 2
    assert counted([]) == 0


def test_what_agrees_with_too_much_else_is_not_compared(monkeypatch):
    monkeypatch.setattr(alike, "MAX_ALIKE", 3)

    assert counted([1 << 63, 1 << 62, 1 << 61, 1 << 60, 1 << 59, 1 << 58]) == 0


@pytest.mark.parametrize(
    ("change", "least"),
    [
        (lambda image: encoded(image, quality=50), 0.95),
        (lambda image: encoded(image.resize((image.width // 2, image.height // 2))), 0.95),
        (lambda image: encoded(image.crop(border(image, 0.01))), 0.85),
    ],
    ids=["re-encoded", "half the size", "cropped by a hundredth"],
)
def test_photographs_that_were_changed_a_little_are_found(shared, change, least):
    files = sorted((shared / "data/human/dev/images").iterdir())[:100]
    photographs = [file.read_bytes() for file in files]

    copies = [change(Image.open(io.BytesIO(each)).convert("RGB")) for each in photographs]

    hashes = [hash_looks(decode(each, ImageLimits(), 128)) for each in photographs + copies]
    assert counted(hashes) >= least * len(photographs)
    assert counted(hashes[:100]) == 0


def encoded(image: Image.Image, quality: int = 85) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def border(image: Image.Image, share: float) -> tuple[int, int, int, int]:
    x, y = int(image.width * share), int(image.height * share)
    return x, y, image.width - x, image.height - y
