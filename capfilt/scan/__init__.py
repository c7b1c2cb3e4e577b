"""What is in some shards, and what a bootstrap would meet there, before any model is loaded."""

from capfilt.scan.counts import Repeated
from capfilt.scan.figures import Scan, scan
from capfilt.scan.rendering import render_scan

__all__ = ["Repeated", "Scan", "render_scan", "scan"]
