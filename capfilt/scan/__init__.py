"""What shards hold, and what a bootstrap would make of them, without a model."""

from capfilt.scan.counts import Repeated
from capfilt.scan.figures import Scan, scan
from capfilt.scan.rendering import render_scan

__all__ = ["Repeated", "Scan", "render_scan", "scan"]
