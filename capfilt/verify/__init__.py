"""Checks of every file of a run."""

from capfilt.verify.run import verify

__all__ = ["verify"]
