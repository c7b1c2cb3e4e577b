"""Count what other thresholds of P(match) would keep under the policy's mix, from one pass over all candidates."""

import numpy as np
from numpy.typing import NDArray

from capfilt.policy import least_itm
from capfilt.query.opened import OpenRun
from capfilt.report.content import Corner, WhatIf
from capfilt.report.mixes import Captions, Ints, Mixed, Samples, mix, read_samples

STEPS = 200  # of a slider, from 0 to 1


def what_if(opened: OpenRun, own: str) -> WhatIf:
    """Return the counts for every step of the two thresholds, and for the policy's own.

    Equal captions of an image count once, with the best of their scores, which is the score of all of them: a filter
    gives equal texts of an image equal scores.

    Args:
        opened: the run.
        own: "web" or "human": the source of the texts that came with the images.
    """
    policy = opened.policy
    thresholds = {source: cut for source, cut in least_itm(policy).items() if source in (own, "synthetic")}
    edges = sorted({step / STEPS for step in range(STEPS + 1)} | set(thresholds.values()))
    counts = {source: np.zeros(len(edges), np.int64) for source in (own, "synthetic")}
    corners = {name: _Corners(len(edges)) for name in (own, "synthetic", "images")}
    for samples in read_samples(opened, edges):
        bins = {own: samples.bin[~np.isnan(samples.own)], "synthetic": samples.captions.bin}
        for source, found in bins.items():
            counts[source] += np.bincount(found, minlength=len(edges))
        _count(samples, mix(samples, policy), *corners.values())
    return WhatIf(
        edges=edges,
        own=own,
        thresholds=thresholds,
        counts={source: each.tolist() for source, each in counts.items()},
        corners={name: each.as_list() for name, each in corners.items()},
    )


class _Corners:
    """The sum at each corner."""

    def __init__(self, edges: int) -> None:
        self.any = edges  # the index that stands for any cut
        self._counts: NDArray[np.int64] = np.zeros((edges + 1, edges + 1), np.int64)

    def add(self, own: Ints | int, synthetic: Ints | int, n: int) -> None:
        """Add n at each of some places."""
        places = np.ravel_multi_index(np.broadcast_arrays(own, synthetic), self._counts.shape)
        self._counts += n * np.bincount(places, minlength=self._counts.size).reshape(self._counts.shape)

    def as_list(self) -> list[Corner]:
        """Return the corners whose sum is not 0."""
        rows, columns = np.nonzero(self._counts)
        return list(zip(rows.tolist(), columns.tolist(), self._counts[rows, columns].tolist(), strict=True))


def _count(samples: Samples, mixed: Mixed, own: _Corners, synthetic: _Corners, images: _Corners) -> None:
    """Add the corners of some samples: with a kept own text, `beside` replaces `alone`."""
    has_own = ~np.isnan(samples.own)

    def add(corners: _Corners, captions: Captions, n: int) -> None:
        near = captions.where(has_own[captions.sample])
        corners.add(samples.bin[near.sample], near.bin, n)

    if mixed.own:
        for corners in (own, images):
            corners.add(samples.bin[has_own], own.any, 1)
    add(own, mixed.rivals, -1)
    for corners, alone in ((synthetic, mixed.alone), (images, mixed.alone.firsts())):
        corners.add(corners.any, alone.bin, 1)
        add(corners, alone, -1)
    add(synthetic, mixed.beside, 1)
    if not mixed.own:
        add(images, mixed.beside.firsts(), 1)
