"""What a sample shows without a model: whether its image decodes, and whether its text says anything."""

import hashlib

from capfilt.config import ImageLimits
from capfilt.errors import ImageError
from capfilt.images import DecodedImage, decode
from capfilt.records import Sample, SampleRecord
from capfilt.texts import clean


def examine(
    sample: Sample, limits: ImageLimits, least_side: float | None = None
) -> tuple[SampleRecord, DecodedImage | None]:
    """Return the row of a sample, and its image if that can be used.

    Args:
        sample: as it was read.
        limits: on the size of file and image.
        least_side: as for images.decode.
    """
    record = SampleRecord(
        position=sample.position,
        key=sample.key,
        image_sha256=hashlib.sha256(sample.image).hexdigest() if sample.image else "",
        width=None,
        height=None,
        format="",
        url=sample.url,
        metadata=sample.metadata,
        status=sample.status,
        text_status="empty" if sample.text and not clean(sample.text) else sample.text_status,
        error=sample.error,
    )
    if sample.status != "ok":
        return record, None
    try:
        image = decode(sample.image, limits, least_side)
    except ImageError as error:
        return record._replace(status=error.reason, error=str(error)), None
    return record._replace(width=image.width, height=image.height, format=image.format), image
