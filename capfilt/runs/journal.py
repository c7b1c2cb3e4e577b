"""Reading the journal of a run, as lines for people."""

import json
import time
from collections.abc import Iterator

from capfilt import storage
from capfilt.errors import RunError
from capfilt.runs.standing import job_of, look_at

POLL = 2.0  # seconds between two looks at a journal that is followed


def read_journal(root: str, follow: bool = False) -> Iterator[str]:
    """Yield the events of a run as lines for people; with follow, go on until no driver is at work on the run.

    For a loop, these are the events of the run that it has reached.

    Raises:
        RunError: the run has no journal.
    """
    root = job_of(storage.absolute(root))
    path = storage.join(root, "journal.jsonl")
    if not storage.exists(path):
        raise RunError(f"{path}: not found; capfilt bootstrap writes it, other jobs do not")
    position = 0
    while True:
        at_work = follow and look_at(root).state in ("running", "stopping")  # first, so that its last lines are read
        data = storage.read_bytes(path, start=position)
        whole = data[: data.rfind(b"\n") + 1]  # the last line may be incomplete
        position += len(whole)
        yield from map(_line, whole.decode(errors="replace").splitlines())
        if not at_work:
            return
        time.sleep(POLL)


def _line(text: str) -> str:
    try:
        values = dict(json.loads(text))
        head = f"{values.pop('time')}  {values.pop('event')}"
    except (ValueError, TypeError, KeyError, RecursionError):  # a line that a full disk cut short
        return text
    return "  ".join([head, *(f"{name}: {_value(value)}" for name, value in values.items())])


def _value(value: object) -> str:
    if isinstance(value, list):
        return "".join(f"\n    {entry}" for entry in value) or "none"
    return str(value).replace("\n", "\n    ")
