"""What another policy gains and loses on a run, compared with the one before."""

from capfilt.recut.difference import Difference, Example, SourceDifference, difference
from capfilt.recut.rendering import render_difference

__all__ = ["Difference", "Example", "SourceDifference", "difference", "render_difference"]
