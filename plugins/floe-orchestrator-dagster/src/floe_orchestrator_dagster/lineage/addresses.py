"""Reads addresses from profiles: URLs, connection strings, paths and locations of files.

The results contain hosts, ports and paths, never a user or a password. A part that cannot be read
is `UNKNOWN`; nothing is raised.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

UNKNOWN = "unknown"

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104  only compared
# Users and passwords may contain anything but `/?#`. An `@` elsewhere means an unquoted password;
# such a text does not match at all.
_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.\-]*)://)?(?:[^/?#]*@)?(?P<host>\[[^\]@]*\]|[^:/?#@\[\]]*)"
    r"(?::(?P<port>\d*))?(?:/(?P<path>[^?#@]*))?(?:\?(?P<query>[^#@]*))?(?:#[^@]*)?",
    re.IGNORECASE,
)
_AUTHORITY = re.compile(r"(?:[\w.\-$]+@)?[\w.\-]*(?::\d+)?")  # container@account, too
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


def server_uri(scheme: str, host: str, port: str, default: str) -> str:
    """Return `scheme://host:port`; an explicit port wins over one in the host."""
    name, own_port = host_and_port(host)
    number = as_port(port) or own_port or default
    return f"{scheme}://{bracketed(name)}" + (f":{number}" if number else "")


def host_and_port(text: str) -> tuple[str, str]:
    """Return the host in lower case, `localhost` for this machine, and the port after it."""
    if text.startswith("/"):
        return text.replace("/", "%2F"), ""
    if text.count(":") > 1 and "://" not in text and "[" not in text:
        text = f"[{text}]"
    url = _URL.fullmatch(text)
    host = (url["host"] or "").strip("[]").lower() if url else ""
    if host in _LOOPBACK:
        host = "localhost"
    return host or UNKNOWN, (url["port"] or "" if url else "")


def as_port(text: str) -> str:
    """Return a port in digits; "" for anything else."""
    return text if text.isdigit() else ""


def bracketed(host: str) -> str:
    """Return a host in the form of a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def read_connection(text: str) -> dict[str, str]:
    """Return the parts of a connection URL or of `key=value` pairs; else `{"": unknown}`."""
    bare = re.sub(r"^(?:postgres|postgresql|mysql):(?!//)", "", text.strip(), flags=re.IGNORECASE)
    if "://" in bare:
        url = _URL.fullmatch(bare)
        if url is None or "/" in (url["path"] or ""):
            return {"": UNKNOWN}
        query = {key: values[-1] for key, values in parse_qs(url["query"] or "").items()}
        parts = {
            "host": unquote(url["host"] or "").strip("[]"),
            "port": url["port"] or "",
            "dbname": unquote(url["path"] or ""),
        }
        return {key: parts.get(key) or first_text(query.get(key)) for key in parts}
    pairs: dict[str, str] = {}
    at = 0
    while at < len(bare):
        pair = _PAIR.match(bare, at)
        if pair is None or pair.end() == at:
            return {"": UNKNOWN}
        value = pair[2][1:-1] if pair[2].startswith("'") else pair[2]
        pairs[pair[1].lower()] = re.sub(r"\\(.)", r"\1", value)
        at = pair.end()
    return pairs


def file_path(path: str, root: str) -> str:
    """Return the normalized path of a file, without the credentials and query of a URL."""
    if "://" in path:
        url = _URL.fullmatch(path)
        if url is None or not url["scheme"]:
            return UNKNOWN
        port = f":{url['port']}" if url["port"] else ""
        return f"{url['scheme'].lower()}://{url['host'].lower()}{port}/{url['path'] or ''}"
    path = path.partition("?")[0]
    return posixpath.normpath(posixpath.join(root, path)) if path else UNKNOWN


def plain_uri(uri: str) -> str | None:
    """Return a URI without user, password and query; None if the text is not a URI."""
    url = _URL.fullmatch(uri)
    return file_path(uri, "").rstrip("/") if url and url["scheme"] and url["host"] else None


def place_of_files(uri: str) -> tuple[str, str]:
    """Return the namespace and name of files: bucket and key, or the path of other files."""
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if not separator:
        path = uri[5:] if uri.lower().startswith("file:") else uri
        return "file", posixpath.normpath(path) if path else UNKNOWN
    authority, _, path = rest.partition("?")[0].partition("/")
    path = path.rstrip("/")
    if not _AUTHORITY.fullmatch(authority) or (":" in authority and "@" in path):
        # This is neither a bucket nor a server, so it may be part of a password.
        return f"{scheme}://{UNKNOWN}", UNKNOWN
    if scheme not in {"abfs", "abfss", "wasb", "wasbs"}:
        authority = authority.rpartition("@")[2]
    if scheme == "file":
        return f"file://{authority}" if authority else "file", f"/{path}"
    scheme = "s3" if scheme in {"s3a", "s3n"} else scheme
    return f"{scheme}://{authority}", f"/{path}" if scheme == "hdfs" else path


def first_text(*values: object) -> str:
    """Return the first value that is a number or a text that is not empty, as text."""
    for value in values:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            text = str(value).strip()
            if text:
                return text
    return ""


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}
