"""The capfilt command."""

from capfilt.cli.main import cli

__all__ = ["cli"]
