"""Files that look alike: their perceptual hashes differ in a few bits. Not all pairs of files need be compared.

A hash is cut into six bands of bits. If two hashes differ in at most four bits, at least two bands are equal. So for
each of the fifteen pairs of bands, only files that agree in both are compared. docs/deciding.md says what this finds.
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
"""Whether images that look alike can be found."""

BITS = 4
"""Hashes that differ in at most so many bits count as alike."""

MAX_ALIKE = 1000
"""If more hashes agree in a pair of bands, they are not compared: a white border may be all that they share."""

_BANDS = BITS + 2
# a band takes every sixth bit: white borders would make bands of neighbouring bits equal in millions of files
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

    None if the extra is not installed, and instead of 0, which says too little: no pixel is brighter than the last.
    """
    if imagehash is None:
        return None
    signs = imagehash.dhash(Image.fromarray(image.pixels)).hash
    return int.from_bytes(np.packbits(signs).tobytes(), "big") or None


def count_alike(connection: duckdb.DuckDBPyConnection, images: duckdb.DuckDBPyRelation) -> int:
    """Return how many files look like another, different file, not counting the first of each kind.

    Args:
        connection: the one that `images` belongs to; temporary tables are made in it.
        images: a relation with the columns sha256 and looks, which may be null.
    """
    images.filter("looks IS NOT NULL").aggregate("looks, count(DISTINCT sha256) AS files").create("hashes")
    connection.execute("CREATE TEMP TABLE near (looks UBIGINT)")
    for mask in _MASKS:
        connection.execute(_NEAR.format(mask=mask, most=MAX_ALIKE, bits=BITS))
    files, near = connection.sql(
        "SELECT coalesce(sum(files - 1), 0)::BIGINT, (SELECT count(DISTINCT looks) FROM near) FROM hashes"
    ).fetchall()[0]
    return int(files + near)
