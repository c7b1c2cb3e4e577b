"""Compare two runs over the same images: rounds, captioners, filters, settings or policies."""

from capfilt.compare.figures import Comparison, Example, Shift, SourceComparison, compare
from capfilt.compare.rendering import render_comparison

__all__ = ["Comparison", "Example", "Shift", "SourceComparison", "compare", "render_comparison"]
