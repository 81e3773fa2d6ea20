"""Separates URLs from the secrets that they contain.

This module uses only the standard library, because the dbt child process imports it. No function
raises an error for a text that is not a URL.
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
# With these schemes the user name is a login, such as `git`; with others it may be a token.
_LOGIN_SCHEMES = frozenset({"ssh"})
_GIT_SCHEMES = WEB | {"ssh", "git"}
# ssh also accepts git@github.com:org/repo.git for ssh://git@github.com/org/repo.git.
_SCP_LIKE = re.compile(r"(?:[^@/]+@)?(?P<host>[^:/@]+):(?P<path>(?!//).+)")


def server_url(text: str) -> SplitResult | None:
    """Return the parts of a URL that names a server; None for any other text.

    Reading its `hostname` and `port` raises no error. A URL with an `@` after its host is refused:
    its password contains `/`, `?` or `#`, so the text before that is not the host.
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
    """Return a URL for people: without credentials, query and fragment, in printable characters.

    Return "" for a text that is not the URL of a server, because any part of it may be secret.
    """
    parts = server_url(text)
    if parts is None:
        return ""
    where = parts.netloc.rpartition("@")[2]
    return printable(f"{parts.scheme}://{where}{parts.path.rstrip('/')}")


def secrets_of(url: SplitResult) -> tuple[str, ...]:
    """Return the secrets of a URL in every form that a response may repeat, the longest first.

    These are the query, and the credentials as written, decoded, and as basic authentication
    sends them.
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
    """Return a text with `MASK` in place of each secret; pass the longest first."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


def basic_credentials(url: SplitResult) -> str:
    """Return a URL's user and password as basic authentication sends them: base64."""
    pair = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
    return base64.b64encode(pair.encode()).decode()


def passwords_in(text: str) -> Iterator[str]:
    """Yield the password of any connection URL, as written and decoded; nothing for other texts."""
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
    """Return whether a URL contains a password, or a user name that may be a token."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    is_login = parts.scheme in _LOGIN_SCHEMES
    return parts.password is not None or (parts.username is not None and not is_login)


def repository_url(remote: str) -> str | None:
    """Return a git remote as an https URL without credentials; None for a local one.

    The port of ssh is removed, because the web server has a different one.
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
    """Return a text with a space in place of each character that a terminal cannot show."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
