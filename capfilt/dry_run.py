"""What a job would do: the answer of its dry run, which looks at all that the job needs and writes nothing.

A dry run goes the same way as the job: it calls what the job calls before its first write.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from capfilt.display import in_bytes, redact
from capfilt.errors import CapfiltError
from capfilt.storage import absolute, local_path


class DryRun:
    """What a job would do, in words, and what prevents it."""

    def __init__(self, job: str) -> None:
        self.job = job
        self.facts: list[tuple[str, str]] = []  # topic and fact
        self.problems: list[str] = []

    def tell(self, topic: str, fact: str) -> None:
        """Add a fact."""
        self.facts.append((topic, fact))

    def refuse(self, problem: str) -> None:
        """Add what prevents the job, with the remedy. A problem that several checks find is added once."""
        if problem not in self.problems:
            self.problems.append(problem)

    @contextmanager
    def examine(self) -> Iterator[None]:
        """Turn an error that the user can fix into a problem, so that the checks after the block are made, too."""
        try:
            yield
        except (CapfiltError, OSError) as error:
            self.refuse(str(error))

    def writes(self, place: str, need: float) -> None:
        """Add that a file or folder is written, and check that this is allowed and that there is room.

        Args:
            place: path or URL.
            need: bytes, at most.
        """
        local = local_path(absolute(place))
        if local is None:
            self.tell("writes", f"{place}, up to {in_bytes(need)}")
            return
        there = next(path for path in (local, *local.parents) if path.exists())
        free = shutil.disk_usage(there).free
        self.tell("writes", f"{place}, up to {in_bytes(need)}; {in_bytes(free)} are free there")
        if need > free:
            found = f"needs up to {in_bytes(need)}, {in_bytes(free)} are free"
            self.refuse(f"{place}: {found}; make room, or write elsewhere")
        if not os.access(there, os.W_OK) or (there != local and not Path(there).is_dir()):
            self.refuse(f"{place}: {there} cannot be written; change its permissions, or write elsewhere")

    def __str__(self) -> str:
        width = max((len(topic) for topic, _ in self.facts), default=0)
        lines = [f"{self.job}, dry run: nothing was written"]
        lines += [f"  {topic:<{width}}  {fact}" for topic, fact in self.facts]
        lines += [f"problem: {problem}" for problem in self.problems]
        return redact("\n".join(lines))
