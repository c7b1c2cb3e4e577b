"""What is in some shards, and what a bootstrap would meet there, before any model is loaded."""

from capfilt.scan.figures import Repeated, Scan, scan
from capfilt.scan.rendering import render_scan

__all__ = ["Repeated", "Scan", "render_scan", "scan"]
