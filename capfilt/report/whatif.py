"""Count what other thresholds of P(match) would keep, from one pass over all candidates of a run."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from capfilt.query.cards import admitted, least_itm
from capfilt.query.opened import OpenRun
from capfilt.report.content import WhatIf

STEPS = 200  # of a slider, from 0 to 1
_ROWS = 100_000  # of a batch

Bins = NDArray[np.int64]


def what_if(opened: OpenRun, own: str) -> WhatIf:
    """Return the counts for every step of the two thresholds, and for the policy's own.

    A text that repeats another of its image is counted once, at the best score of the two; a caption that repeats
    the image's own text is counted apart, since which one stands depends on both thresholds.

    Args:
        opened: the run.
        own: "web" or "human": the source of the texts that came with the images.
    """
    policy = opened.policy
    thresholds = {source: cut for source, cut in least_itm(policy).items() if source in (own, "synthetic")}
    edges = sorted({step / STEPS for step in range(STEPS + 1)} | set(thresholds.values()))
    bounds = np.array(edges, np.float32)  # scores are compared as the float32 they are stored as
    size = len(edges) + 1  # place 0 stands for no text, place i + 1 for bin i
    texts, images = np.zeros((2, size, size), np.int64)
    same = "same" if policy.drop_duplicates else "row_number() OVER ()"
    opened.connection.execute(_TEXTS.format(admitted=admitted(policy), same=same))
    for found, query in ((texts, _PAIRS), (images, _BEST)):
        for pairs in _batches(opened, query):
            places = [np.searchsorted(bounds, column, side="right") for column in pairs]
            np.add.at(found, tuple(places), 1)
    opened.connection.execute("DROP TABLE texts")
    counts = {own: texts[1:].sum(axis=1).tolist(), "synthetic": texts[:, 1:].sum(axis=0).tolist()}
    return WhatIf(
        edges=edges,
        own=own,
        thresholds=thresholds,
        counts=counts,
        repeats=_cells(texts[1:, 1:], 0),
        images=_cells(images, 1),
        mix=policy.mix,
        drop_duplicates=policy.drop_duplicates,
    )


# a missing text has the score -1, which is below every edge
_TEXTS = """
    CREATE TEMP TABLE texts AS
    SELECT shard, position, coalesce(max(itm) FILTER (source <> 'synthetic'), -1) AS own,
           coalesce(max(itm) FILTER (source = 'synthetic'), -1) AS synthetic
    FROM (SELECT *, {same} AS twin FROM candidates) WHERE {admitted} GROUP BY shard, position, twin
"""
_PAIRS = "SELECT own, synthetic FROM texts"
_BEST = "SELECT max(own) AS own, max(synthetic) AS synthetic FROM texts GROUP BY shard, position"


def _batches(opened: OpenRun, query: str) -> Iterator[list[NDArray[np.float32]]]:
    """Yield the columns of an answer, some rows at a time."""
    for batch in opened.sql(query).to_arrow_reader(_ROWS):
        yield [column.to_numpy() for column in batch.columns]


def _cells(counts: Bins, shift: int) -> list[tuple[int, int, int]]:
    """Return the places and values of what is not 0."""
    rows, columns = np.nonzero(counts)
    values = counts[rows, columns].tolist()
    return list(zip((rows - shift).tolist(), (columns - shift).tolist(), values, strict=True))
