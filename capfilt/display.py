"""Make text safe to show: without credentials, and without what moves a terminal's cursor or reverses a line.

A text from the web may hold escape sequences that command a terminal, and direction overrides that show other words
than there are. `redact` is for logs and errors, which quote URLs; `one_line` is for the cells of a table; `reveal`
makes visible what a reader could not see, and harmless what would act.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from urllib.parse import unquote

from capfilt.texts import JOINERS, clean

CREDENTIALS = (
    "a URL with credentials in it would be stored with the run and shown in logs; give the plain URL, and the "
    "credentials to the store's own client: by environment (AWS_ACCESS_KEY_ID, ...), its files (~/.aws), or a role"
)

# Names of query parameters that grant access to whoever reads them: in presigned URLs of S3, GCS, Azure, and tokens.
_SECRETS = {"sig", "signature", "key", "apikey", "api_key", "secret", "password", "passwd", "credential", "credentials"}
_SECRETS |= {"token", "access_token", "auth", "sas", "awsaccesskeyid", "googleaccessid"}
_SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-ms-", "x-oss-", "x-cos-", "q-sign", "q-ak")
# A password may hold a slash, as secret keys of S3 do; a port may not be taken for one.
_USERINFO = re.compile(r"(?<=://)[^/\s?#@:'\"]*:(?!\d{1,5}/)[^\s?#'\"]*@")
_PARAMETER = re.compile(r"(?<=[?&;])([^=&;\s\"'<>]+)=([^&;\s\"'<>]*)")
_HIDDEN = "***"
_ESCAPED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories: controls, bidi and other invisible marks, line ends
_UNSEEN = (*_ESCAPED, "Co")  # and private use, which looks different in each font
_ARROWS = {"\n": "↵", "\t": "⇥"}
_PLAIN = re.compile(r"[ -~]*")
_FEW, _NAME = 10, 100  # names in a message, and the characters of each
_MARKS = 3  # combining marks on one letter; more of them reach into the lines around


def redact(text: str) -> str:
    """Return a text that is safe in a log or on a terminal.

    Passwords in URLs and the values of query parameters that grant access are hidden. Invisible characters that change
    how others look are written as escapes. Line feeds and tabs stay.
    """
    hidden = _PARAMETER.sub(_parameter, _USERINFO.sub(f"{_HIDDEN}@", text))
    return "".join(_escaped(character) for character in hidden)


def one_line(text: str, width: int = 60) -> str:
    """Return a text from the web on one line of at most `width` characters, without what could command a terminal."""
    line = clean(text)
    return line if len(line) <= width else f"{line[: width - 3]}..."


def counted(count: float, noun: str) -> str:
    """Return a count for people: "1 shard", "2,880 tokens", "0.5 GPUs"."""
    number = f"{count:,.0f}" if count == int(count) else f"{count:g}"
    return f"{number} {noun}" + ("" if count == 1 else "s")


def four_places(score: float | None) -> str:
    """Return a score cut to four places, not rounded: 0.49999, which 0.5 rejects, must not look like 0.5."""
    if score is None:
        return "none"
    return f"{math.floor(score * 10_000 + 1e-3) / 10_000:.4f}"  # 0.285 is stored as 0.28499999


def devices(cpus: float, gpus: float) -> str:
    """Return what a worker reserves for people: "4 CPUs and 1 GPU"."""
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"


def local_time(seconds: float) -> str:
    """Return a time, in seconds since 1970, in the local zone: "2026-11-28 08:02:31+01:00"."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def on_nodes_with(labels: Mapping[str, str]) -> str:
    """Return where labels keep a job's workers, as the end of a phrase: " on nodes with zone: a"; else empty."""
    return f" on nodes with {', '.join(f'{key}: {wanted}' for key, wanted in labels.items())}" if labels else ""


def in_bytes(count: float) -> str:
    """Return a number of bytes for people, in steps of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def listed(lines: Sequence[str], most: int, more: str = "and {} more") -> list[str]:
    """Return the first `most` lines and, if there are others, a line that says how many."""
    left = len(lines) - most
    return [*lines[:most], more.format(left)] if left > 0 else [*lines]


def few(names: Iterable[str]) -> list[str]:
    """Return the first of some names from the web, such as those of columns, each on one line of bounded length."""
    return listed([reveal(name, _NAME) for name in islice(names, _FEW + 1)], _FEW, "...")


def reveal(text: str, limit: int | None = None) -> str:
    """Return a text on one line in which every character is visible and none acts.

    A text that is longer than `limit` is cut, and ends in an ellipsis. Characters of the categories Cc, Cf, Co, Cs, Zl
    and Zp, such as escapes and direction controls, become their number, as in <U+202E>; line ends and tabs become
    arrows. Of the combining marks on one letter three stay. The result may run from right to left, so a page must
    isolate it.
    """
    if limit is not None and len(text) > limit:
        text = f"{text[: limit - 1]}…"
    if _PLAIN.fullmatch(text):
        return text
    parts: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks <= _MARKS:
            parts.append(_stand_in(character) if category in _UNSEEN else character)
    return "".join(parts)


def shorten(text: str, limit: int) -> tuple[str, str]:
    """Return the first `limit` characters of a text, cut between words if a word ends near, and the rest."""
    if len(text) <= limit:
        return text, ""
    space = text.rfind(" ", limit - limit // 5, limit)
    cut = limit if space < 0 else space
    return text[:cut], text[cut:]


def has_credentials(url: str) -> bool:
    """Return whether a URL holds a password, a token or a signature."""
    if "://" not in url:
        return False
    return bool(_USERINFO.search(url)) or any(_is_secret(found[1]) for found in _PARAMETER.finditer(url))


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={_HIDDEN}" if _is_secret(found[1]) else found[0]


def _is_secret(name: str) -> bool:
    lower = unquote(name).lower()
    return lower in _SECRETS or lower.startswith(_SECRET_PREFIXES)


def _escaped(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _ESCAPED:
        return character
    return ascii(character)[1:-1]


def _stand_in(character: str) -> str:
    if character in JOINERS:
        return character
    return _ARROWS.get(character) or f"<U+{ord(character):04X}>"
