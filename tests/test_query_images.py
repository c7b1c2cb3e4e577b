"""An image is shown only if it is the one that was scored; else the reader is told why there is none."""

import hashlib
from pathlib import Path

from ledgers import image, input_shard, new_run

from capfilt.query.images import GONE, read_images


def test_each_place_gets_its_image_or_why_there_is_none(tmp_path):
    pictures = [image(0), b"", image(2)]
    whole, gone = (input_shard(tmp_path, pictures, id_=f"0000{n}") for n in range(2))
    run = new_run(tmp_path, [whole, gone])
    Path(gone.url).unlink()
    scored = [hashlib.sha256(picture).hexdigest() if picture else "" for picture in pictures]

    found = read_images(
        run,
        {("00001", 0): scored[0], ("00000", 2): scored[2], ("00000", 0): scored[2], ("00000", 1): scored[1]},
    )

    assert found == {
        ("00001", 0): GONE,
        ("00000", 2): pictures[2],
        ("00000", 0): GONE,  # another image was scored
        ("00000", 1): "the shard holds no image for it",
    }
