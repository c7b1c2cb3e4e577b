"""Captioning: a model's captions of an annotated set, compared with human ones."""

from capfilt.captioners.med import MEDCaptioner
from capfilt.evaluation.caption_metrics import caption_metrics
from capfilt.evaluation.images import ImageSet


def evaluate_captioning(captioner: MEDCaptioner, images: ImageSet) -> tuple[dict[str, object], list[dict[str, str]]]:
    """Return the figures of a captioner, and its captions with the names of their images.

    If captions are sampled, an image's random numbers depend on its place in the set.
    """
    references, written = [], []
    for numbers, pixels in images.batches("captioned"):
        for number, captions in zip(numbers, captioner.caption(pixels[:, 0], numbers), strict=True):
            references.append(images.entries[number].captions)
            written.append({"image": images.entries[number].name, "caption": captions[0].text})
    counts = {"images": len(written), "references": sum(map(len, references))}
    return {**counts, **caption_metrics(references, [caption["caption"] for caption in written])}, written
