"""How capfilt logs: a line for each record, as text or JSON, with what it is about, to standard error.

    text   2026-11-26 15:50:02 WARNING 7.tar, samples 0 to 8: attempt 1 of 3: ... [run=/runs/a shard=7 unit=...]
    json   {"time": "2026-11-26T15:50:02+0100", "level": "warning", "message": "...", "run": "/runs/a", ...}

What a record is about comes from `everywhere` and `bound`, around the code that logs, and from the `extra` of the call.
Credentials are hidden, and what could forge a line is escaped. As a library capfilt sets nothing up; the command does,
and its workers do as it did.
"""

import json
import logging
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, get_args

from capfilt.display import redact

Style = Literal["text", "json"]
STYLES: tuple[str, ...] = get_args(Style)
OURS = ("capfilt", "workers", "pipelines")  # loggers that log more than warnings

_style: Style | None = None
_everywhere: dict[str, str] = {}
_bound: ContextVar[dict[str, str] | None] = ContextVar("bound", default=None)
_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}  # attributes that are of no call's extra


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What another process needs to log as this one does."""

    style: Style | None  # None where nothing was set up
    fields: dict[str, str] = field(default_factory=dict)  # of everything that it logs

    @staticmethod
    def here() -> "LogSettings":
        """Return those of this process."""
        return LogSettings(_style, _everywhere)

    def apply(self) -> None:
        """Log in this process as in the one that the settings come from."""
        global _everywhere
        _everywhere = self.fields
        if self.style is not None:
            configure(self.style)


def configure(style: Style) -> None:
    """Log to standard error: what capfilt logs, and warnings of others.

    Those of Pillow are left out, since they name no file: the row of a sample says what is wrong with its image. For
    some errors libtiff itself writes a line to standard error, which cannot be left out here.
    """
    global _style
    if _style is None:
        logging.getLogger().addHandler(_Handler())
    _style = style
    logging.captureWarnings(style == "json")  # else their several lines would come between the records
    warnings.filterwarnings("ignore", module=r"PIL\.", append=True)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)


@contextmanager
def everywhere(**fields: str) -> Iterator[None]:
    """Give all that this process and its workers log meanwhile some more fields."""
    global _everywhere
    before, _everywhere = _everywhere, _everywhere | fields
    try:
        yield
    finally:
        _everywhere = before


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Give all that is logged inside, in this thread alone, some more fields."""
    token = _bound.set(bound_fields() | fields)
    try:
        yield
    finally:
        _bound.reset(token)


def bound_fields() -> dict[str, str]:
    """Return the fields that the code which asks is bound to."""
    return _bound.get() or {}


def bind(fields: dict[str, str]) -> None:
    """Bind a thread, for as long as it lives, to the fields of the one that started it."""
    _bound.set(fields)


def say(text: str) -> None:
    """Say how a job is doing: as a log record, or as a plain line if logging is not set up."""
    if _style is None:
        sys.stderr.write(f"{redact(text)}\n")
    else:
        logging.getLogger("capfilt.progress").info("%s", text)


def say_error(text: str) -> None:
    """Say why a command ends: in plain words, or as the last record of a log of JSON."""
    if _style == "json":
        logging.getLogger("capfilt").error("%s", text)
    else:
        sys.stderr.write(f"{redact(text)}\n")  # it may quote what came from the web


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes records to whatever standard error is at the moment, around a progress bar that may be there."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if "tqdm" not in sys.modules:  # then there is no bar, and --help need not load it
            super().emit(record)
            return
        from tqdm import tqdm

        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        extra = {name: value for name, value in vars(record).items() if name not in _OWN and name[0] != "_"}  # Ray's
        fields = _everywhere | bound_fields() | extra
        return _json(record, fields) if _style == "json" else _text(record, fields)


def _text(record: logging.LogRecord, fields: dict[str, object]) -> str:
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    about = " ".join(f"{name}={_quoted(str(value))}" for name, value in fields.items())
    line = f"{clock} {record.levelname} {record.getMessage()}" + (f" [{about}]" if about else "")
    trace = _trace(record)
    return _without_line_ends(line) + (f"\n{redact(trace)}" if trace else "")


def _json(record: logging.LogRecord, fields: dict[str, object]) -> str:
    values = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(record.created)),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": record.getMessage(),
        **fields,
    }
    trace = _trace(record)
    values |= {"exception": trace} if trace else {}
    # hidden value by value, since a mark of one could end another; JSON itself escapes what is not ASCII
    return json.dumps({name: redact(value) if isinstance(value, str) else value for name, value in values.items()})


def _trace(record: logging.LogRecord) -> str:
    return logging.Formatter().formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[^\s\"\[\]=]+", value) else json.dumps(value, ensure_ascii=False)


def _without_line_ends(text: str) -> str:
    return redact(text).replace("\n", "\\n")
