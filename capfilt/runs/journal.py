"""The journal of a run: what happened, for people. Nothing depends on it.

On a disk it is RUN/journal.jsonl. A file on an object store cannot be appended to, so there each driver has files of
its own, RUN/journal/TIME-ID.jsonl, and rewrites only the last of them: what it sends does not grow with the journal,
and it never overwrites another driver's events. The journal is these files in the order of their names, after the
single RUN/journal.jsonl of earlier versions, if there is one.
"""

import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from capfilt import storage
from capfilt.errors import RunError
from capfilt.runs.lease import is_free
from capfilt.runs.status import job_of

POLL = 2.0  # seconds between two looks at a journal that is followed
MAX_FILE_BYTES = 64 << 10  # bytes of a file on an object store, which is sent again with each addition

logger = logging.getLogger(__name__)


class Journal:
    """Adds events to the journal of a run; a failure to write them stops nothing."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._file, self._text = "", b""  # on an object store: the file that is written anew, and what it holds

    def note(self, event: str, **values: object) -> None:
        """Add an event that happens now."""
        self.add([journal_line(event, **values)])

    def add(self, lines: Sequence[str]) -> None:
        """Add lines at once."""
        text = "\n".join(lines)
        try:
            self._write(text.encode() + b"\n")
        except OSError as error:
            logger.warning("not in the journal: %s, because of %s", text, error)

    def _write(self, data: bytes) -> None:
        if storage.local_path(self._root) is not None:
            storage.append(_file(self._root), data)
            return
        if not self._file or len(self._text) + len(data) > MAX_FILE_BYTES:
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:8]}.jsonl"
            self._file, self._text = storage.join(_folder(self._root), name), b""
        storage.publish(self._file, self._text + data)
        self._text += data


def journal_line(event: str, **values: object) -> str:
    """Return an event that happens now as a line of a journal."""
    return json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **values})


def read_journal(root: str, follow: bool = False) -> Iterator[str]:
    """Yield the events of a run as lines for people; with follow, go on until no driver is at work on the run.

    For a loop, these are the events of the run that it has reached.

    Raises:
        RunError: the run has no journal.
    """
    root = job_of(storage.absolute(root))
    if not _files(root):
        raise RunError(f"{_file(root)}: not found; capfilt bootstrap writes it, other jobs do not")
    last, position = "", 0  # the file that was read last, and how much of it is told
    while True:
        at_work = follow and not is_free(root)  # first, so that its last lines are read
        for path in _files(root):
            if path < last:  # it grows no more: its driver has begun another, or has ended
                continue
            position = position if path == last else 0
            data = storage.read_bytes(path, start=position)
            whole = data[: data.rfind(b"\n") + 1]  # the last line may be incomplete
            last, position = path, position + len(whole)
            yield from map(_line, whole.decode(errors="replace").splitlines())
        if not at_work:
            return
        time.sleep(POLL)


def _file(root: str) -> str:
    return storage.join(root, "journal.jsonl")


def _folder(root: str) -> str:
    return storage.join(root, "journal")


def _files(root: str) -> list[str]:
    """Return the files of a journal in their order."""
    single = [_file(root)] if storage.exists(_file(root)) else []
    return single + [storage.join(_folder(root), name) for name in storage.list_files(_folder(root))]


def _line(text: str) -> str:
    try:
        values = dict(json.loads(text))
        head = f"{values.pop('time')}  {values.pop('event')}"
    except (ValueError, TypeError, KeyError, RecursionError):  # a line that a full disk cut short
        return text
    return "  ".join([head, *(f"{name}: {_value(value)}" for name, value in values.items() if value != [])])


def _value(value: object) -> str:
    if isinstance(value, list):
        return "".join(f"\n    {entry}" for entry in value)
    return str(value).replace("\n", "\n    ")
