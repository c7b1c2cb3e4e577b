"""Which files look alike: those whose perceptual hashes differ in a few bits, found without comparing all with all.

A hash is cut in six bands of bits. Where two differ in at most four bits, two bands at least are equal, so for each of
the fifteen pairs of bands only files that agree in both are compared. docs/deciding.md tells what is found so.
"""

from itertools import combinations

import duckdb
import numpy as np

from capfilt.images import DecodedImage

try:
    import imagehash
    from PIL import Image
except ImportError:  # the extra "duplicates" is not installed
    imagehash = None

TELLS_LOOKS = imagehash is not None
"""Whether images that look alike can be told."""

BITS = 4
"""Hashes that differ in no more bits count as alike."""

MAX_ALIKE = 1000
"""More hashes that agree in a pair of bands are not compared there: all they share may be a white border."""

_BANDS = BITS + 2
# a band takes every sixth bit, no neighbours: white borders would make such bands equal in millions of files
_MASKS = [sum(1 << bit for band in pair for bit in range(band, 64, _BANDS)) for pair in combinations(range(_BANDS), 2)]

_NEAR = """
    INSERT INTO near
    WITH agreeing AS (
        SELECT looks, looks & {mask}::UBIGINT AS bands FROM hashes
        QUALIFY count(*) OVER (PARTITION BY bands) BETWEEN 2 AND {most}
    )
    SELECT DISTINCT b.looks FROM agreeing a JOIN agreeing b USING (bands)
    WHERE a.looks < b.looks AND bit_count(xor(a.looks, b.looks)) <= {bits}
"""


def hash_looks(image: DecodedImage) -> int | None:
    """Return the difference hash of an image: 64 signs of how brightness changes along the rows of a tiny copy.

    None when the extra is not installed, and for 0: then nothing differs from its neighbour, which tells nothing.
    """
    if imagehash is None:
        return None
    signs = imagehash.dhash(Image.fromarray(image.pixels)).hash
    return int.from_bytes(np.packbits(signs).tobytes(), "big") or None


def count_alike(connection: duckdb.DuckDBPyConnection, images: duckdb.DuckDBPyRelation) -> int:
    """Return how many files look like another, different file, without the first of each kind.

    Args:
        connection: that `images` is of; temporary tables are made in it.
        images: with the columns sha256 and looks, which may be null.
    """
    images.filter("looks IS NOT NULL").aggregate("looks, count(DISTINCT sha256) AS files").create("hashes")
    connection.execute("CREATE TEMP TABLE near (looks UBIGINT)")
    for mask in _MASKS:
        connection.execute(_NEAR.format(mask=mask, most=MAX_ALIKE, bits=BITS))
    files, near = connection.sql(
        "SELECT coalesce(sum(files - 1), 0)::BIGINT, (SELECT count(DISTINCT looks) FROM near) FROM hashes"
    ).fetchall()[0]
    return int(files + near)
