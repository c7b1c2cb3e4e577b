"""The images of an evaluation, in batches that are decoded ahead of the model; undecodable ones are counted.

Shapes: B images or clips, F frames of a clip (1 for an image), S side of the square input.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from capfilt.annotations import Annotated
from capfilt.config.evaluation import EvaluateConfig, EvaluationData
from capfilt.errors import AnnotationError, ImageError
from capfilt.evaluation.video import evenly_spaced, in_time
from capfilt.images import decode, resize
from capfilt.prefetch import prefetch
from capfilt.progress import Progress
from capfilt.storage import join, list_files, read_bytes


class ImageSet:
    """The images, or clips, of annotated entries. `left_out` gives the reason for each that cannot be decoded."""

    def __init__(self, entries: Sequence[Annotated], data: EvaluationData, config: EvaluateConfig, side: int) -> None:
        self.entries, self.data, self.config, self.side = entries, data, config, side
        self.left_out: dict[str, str] = {}

    def batches(self, note: str) -> Iterator[tuple[list[int], Tensor]]:
        """Yield the numbers of some entries and their pixels, uint8 (B, F, 3, S, S), in order, showing progress.

        Raises:
            AnnotationError: an image is missing, or none can be decoded.
        """
        config, numbers = self.config, range(len(self.entries))
        good = 0
        with Progress(len(self.entries), 0) as progress:
            for batch in prefetch(numbers, config.batch_size, self._prepare, config.decode_threads):
                read = [(number, pixels) for number, pixels in batch if pixels is not None]
                if read:
                    good += len(read)
                    yield [number for number, _ in read], torch.stack([pixels for _, pixels in read])
                progress.add(len(batch), note)
        if not good:
            raise AnnotationError(
                f"{self.data.annotations}: none of its {len(self.entries)} images in {self.data.images} can be "
                f"decoded ({dict(self.reasons)}); copy them again"
            )

    def look(self) -> None:
        """Read the image of the first entry, to check the folder of images; errors as in batches."""
        self._prepare(0)

    @property
    def reasons(self) -> Counter[str]:
        """How many were left out, by reason."""
        return Counter(self.left_out.values())

    def _prepare(self, number: int) -> tuple[int, Tensor | None]:
        entry = self.entries[number]
        try:
            return number, torch.stack([self._read(name, entry) for name in self._frames(entry)])  # (F, 3, S, S)
        except ImageError as error:
            self.left_out[entry.name] = error.reason
            return number, None

    def _read(self, name: str, entry: Annotated) -> Tensor:
        try:
            image = read_bytes(join(self.data.images, name))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise self._absent(name, entry) from None
        return resize(decode(image, self.data.limits).pixels, self.side)

    def _frames(self, entry: Annotated) -> Sequence[str]:
        if self.config.task != "video":
            return [entry.name]
        folder = join(self.data.images, entry.name)
        names = entry.frames or [f"{entry.name}/{name}" for name in in_time(list_files(folder))]
        if not names:
            raise self._absent(entry.name, entry)
        return evenly_spaced(names, self.config.video.frames)

    def _absent(self, name: str, entry: Annotated) -> AnnotationError:
        return AnnotationError(
            f"{self.data.annotations}: {entry.place}: {join(self.data.images, name)} is not there; "
            "set data.images to the folder that the names are relative to"
        )
