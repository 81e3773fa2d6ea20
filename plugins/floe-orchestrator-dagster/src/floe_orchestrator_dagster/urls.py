"""Reads URLs that may hold secrets: shows them without, and lists what nobody may repeat.

Needs the standard library alone, because the dbt child process uses it. Nothing here raises for a
text that is not a URL.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from urllib.parse import SplitResult

MASK = "***"
WEB = frozenset({"http", "https"})
_HOST = re.compile(r"[\w.:-]+")
# A user name in one of these is a login, such as git's; in others a token may stand there.
_LOGIN_SCHEMES = frozenset({"ssh"})
_GIT_SCHEMES = WEB | {"ssh", "git"}
# git@github.com:org/repo.git is ssh's way to write ssh://git@github.com/org/repo.git.
_SCP_LIKE = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/@]+):(?P<path>(?!//).+)")


def server_url(text: str) -> SplitResult | None:
    """Return the parts of a URL that names a server; None for any other text.

    Its `hostname` and `port` can be read without an error. A URL with an `@` behind its host is
    none: that is the end of a password with a `/`, `?` or `#` in it, so the host is not the host.
    """
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return None
    if not parts.scheme or not _HOST.fullmatch(host):
        return None
    return None if "@" in f"{parts.path}{parts.query}{parts.fragment}" else parts


def web_url(text: str) -> SplitResult | None:
    """Return the parts of an http or https URL; None for any other text. See `server_url`."""
    parts = server_url(text)
    return parts if parts is not None and parts.scheme in WEB else None


def shown(text: str) -> str:
    """Return a URL for people: without credentials, query and fragment, in printable letters.

    "" for what is not the URL of a server, since nobody knows which part of it is secret.
    """
    parts = server_url(text)
    if parts is None:
        return ""
    where = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{where}{parts.path.rstrip('/')}")


def secrets_of(url: SplitResult) -> tuple[str, ...]:
    """Return what an answer could repeat of a URL's secrets, the longest first; () without any.

    These are the credentials as written, as decoded and as basic authentication sends them, and
    the query.
    """
    secrets = {url.query}
    if "@" in url.netloc:
        raw = url.netloc.rpartition("@")[0]
        password = raw.partition(":")[2]
        secrets |= {raw, password, unquote(password), basic_credentials(url)}
        if not password:
            secrets.add(unquote(raw))
    return tuple(sorted(filter(None, secrets), key=len, reverse=True))


def masked(text: str, secrets: Iterable[str]) -> str:
    """Return a text with `MASK` in place of each secret; give the longest first."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def basic_credentials(url: SplitResult) -> str:
    """Return a URL's user and password as basic authentication sends them: base64."""
    pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return base64.b64encode(pair.encode()).decode()


def passwords_in(text: str) -> Iterator[str]:
    """Yield the password in a URL, as written and decoded; nothing for other texts.

    Any connection URL counts, whatever its host is made of.
    """
    if "://" not in text:
        return
    try:
        password = urlsplit(text).password
    except ValueError:
        return
    if password:
        yield password
        yield unquote(password)


def holds_secret(text: str) -> bool:
    """Tell whether a URL holds a password, or a user that may be a token."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    is_login = parts.scheme in _LOGIN_SCHEMES
    return parts.password is not None or (parts.username is not None and not is_login)


def repository_url(remote: str) -> str | None:
    """Return a git remote as an https URL without credentials; None for a local one.

    Of ssh's port nothing is left: the web server has another.
    """
    if "://" not in remote:
        scp = _SCP_LIKE.fullmatch(remote)
        return f"https://{scp['host']}/{scp['path']}" if scp else None
    url = server_url(remote)
    if url is None or url.scheme not in _GIT_SCHEMES:
        return None
    host = url.netloc.rpartition("@")[2] if url.scheme in WEB else url.hostname
    return f"https://{host}{url.path}"


def printable(text: str) -> str:
    """Return a text with a space in place of each letter that a terminal cannot show."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
