"""A run: its folder and its plan, who works on it, how far it is, and how it is asked to stop."""

from capfilt.runs.folder import Run, begun_with, find_run, forgotten_unless_begun, load_run, start_run
from capfilt.runs.selection import Selection, load_policy

__all__ = [
    "Run",
    "Selection",
    "begun_with",
    "find_run",
    "forgotten_unless_begun",
    "load_policy",
    "load_run",
    "start_run",
]
