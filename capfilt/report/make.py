"""Make the report of a run: gather, read the images, draw, and publish one file."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from capfilt import storage
from capfilt.display import counted
from capfilt.query.images import GONE, read_images
from capfilt.query.opened import OpenRun
from capfilt.report.gather import gather
from capfilt.report.page import render
from capfilt.report.thumbnails import LEFT_OUT, Picture, make_pictures


def make_report(opened: OpenRun, output: str, samples: int = 24, seed: int = 0, megabytes: float = 8.0) -> str:
    """Write a run's report, and return its path, size and number of samples in one line.

    Args:
        opened: the run, opened with a policy.
        output: path or URL of the file.
        samples: most samples of a gallery.
        seed: of the galleries that are drawn.
        megabytes: most that the pictures take; the last ones are left out.
    """
    report = gather(opened, samples, seed)
    cards = [card for section in (*report.sections, report.failures) for card in section.cards]
    images = read_images(opened.run, {card.place: card.image_sha256 for card in cards})
    limits = opened.run.config().images
    pictures = make_pictures({card.place: images[card.place] for card in cards}, limits, int(megabytes * 1e6))
    report = replace(report, notes=[*report.notes, *_missing(pictures.values())])
    page = render(report, pictures).encode()
    storage.publish(output, page)
    return f"{output}: {len(page) / 1e6:.1f} MB, {counted(len(pictures), 'sample')}"


def _missing(pictures: Iterable[Picture]) -> list[str]:
    counts = Counter(picture.missing for picture in pictures)
    return [f"Without their image: {counted(counts[why], 'sample')}; {why}." for why in (GONE, LEFT_OUT) if counts[why]]
