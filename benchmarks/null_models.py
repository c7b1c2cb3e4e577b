"""Models that compute nothing, and shards that hold next to nothing: what is left is everything around the models."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from capfilt.bootstrap import CapFilt
from capfilt.config import BootstrapConfig
from capfilt.filters import Scores
from capfilt.records import Caption, Unit, UnitResult
from capfilt.shards import write_tar
from capfilt.turns import UNSHARED, Turn

LINKS = 30_000  # to one file, at most; ext4 takes 65,000


class NullCaptioner:
    """Says the same of every image."""

    name = "c0ffee"
    image_size = 8

    def caption(self, pixels: Tensor, noise: Sequence[int], turn: Turn = UNSHARED) -> list[list[Caption]]:
        """Return one caption for each image."""
        return [[Caption("a picture of a thing on a table", 8, -9.5)] for _ in noise]


class NullFilter:
    """Finds that every text fits."""

    name = "f117e4"
    image_size = 8

    def score(self, pixels: Tensor, texts: Sequence[Sequence[str]], turn: Turn = UNSHARED) -> list[list[Scores]]:
        """Return scores for each text of each image."""
        return [[Scores(0.75, 0.25) for _ in group] for group in texts]


class CountingWorker:
    """Returns at once what a unit would come to, and says that it completed every shard."""

    def run(self, unit: Unit) -> UnitResult:
        """Return made-up counts."""
        samples = unit.hi - unit.lo
        texts = {"web": samples, "synthetic": samples}
        return UnitResult(unit, {"ok": samples}, texts, texts, 8 * samples, {"caption": 1.0}, completes=True)


def build_null(config: BootstrapConfig) -> CapFilt:
    """Return both models."""
    return CapFilt(NullCaptioner(), NullFilter())


def write_inputs(folder: Path, shards: int, samples: int) -> list[str]:
    """Make shards of the same few samples, as links to a few files, and return their ids.

    Args:
        folder: gets the shards, in its folder in.
        shards: how many.
        samples: of a shard.
    """
    (folder / "in").mkdir(parents=True)
    ids = [f"{number:06d}" for number in range(shards)]
    members = [
        (f"{number:06d}.{suffix}", content)
        for number in range(samples)
        for suffix, content in (("jpg", picture()), ("txt", b"a red thing, buy now"))
    ]
    for number, id_ in enumerate(ids):
        source = folder / f"source{number // LINKS}.tar"
        if number % LINKS == 0:
            write_tar(source, members)
        os.link(source, folder / f"in/{id_}.tar")
    return ids


def picture(side: int = 16) -> bytes:
    """Return a JPEG of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(file, "JPEG")
    return file.getvalue()
