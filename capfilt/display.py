"""Making text fit to be seen: no credentials, and nothing that moves a terminal's cursor or turns a line around."""

import re
import unicodedata
from urllib.parse import unquote

CREDENTIALS = (
    "a URL with credentials in it would be stored with the run and shown in logs; give the plain URL, and the "
    "credentials to the store's own client: by environment (AWS_ACCESS_KEY_ID, ...), its files (~/.aws), or a role"
)

# Names of query parameters that open a door to whoever reads them: presigned URLs of S3, GCS and Azure, and tokens.
_SECRETS = {"sig", "signature", "key", "apikey", "api_key", "secret", "password", "passwd", "credential", "credentials"}
_SECRETS |= {"token", "access_token", "auth", "sas", "awsaccesskeyid", "googleaccessid"}
_SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-ms-", "x-oss-", "x-cos-", "q-sign", "q-ak")
# A password may hold a slash, as secret keys of S3 do; a port may not be taken for one.
_USERINFO = re.compile(r"(?<=://)[^/\s?#@:'\"]*:(?!\d{1,5}/)[^\s?#'\"]*@")
_PARAMETER = re.compile(r"(?<=[?&;])([^=&;\s\"'<>]+)=([^&;\s\"'<>]*)")
_HIDDEN = "***"
_TURNED = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories: controls, bidi and other unseen marks, line ends


def shown(text: str) -> str:
    """Return a text as it may stand in a log or on a terminal.

    Passwords in URLs and the values of query parameters that give access are hidden, and characters that are not
    seen themselves, but change how others are, are written as escapes. Line feeds and tabs stay.
    """
    hidden = _PARAMETER.sub(_parameter, _USERINFO.sub(f"{_HIDDEN}@", text))
    return "".join(_escaped(character) for character in hidden)


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
    if character in "\n\t" or unicodedata.category(character) not in _TURNED:
        return character
    return ascii(character)[1:-1]
