"""The figures of a run: counts by any of its columns, scores, and how its texts differ by source."""

from capfilt.stats.overview import SourceStats, Stats, summarise
from capfilt.stats.rendering import csv_slices, render_slices, render_text
from capfilt.stats.slices import DIMENSIONS, Slice, Slices, cut
from capfilt.stats.texts import TextStats, describe_texts

__all__ = [
    "DIMENSIONS",
    "Slice",
    "Slices",
    "SourceStats",
    "Stats",
    "TextStats",
    "csv_slices",
    "cut",
    "describe_texts",
    "render_slices",
    "render_text",
    "summarise",
]
