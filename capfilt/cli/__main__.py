"""Runs the command as python -m capfilt.cli."""

from capfilt.cli.main import cli

cli()
