"""Reads addresses out of profiles: URLs, connection strings, paths, places of files.

What comes out holds hosts, ports and paths, never a user or a password. What cannot be read is
`UNKNOWN`; nothing is raised.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

UNKNOWN = "unknown"

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104  only compared
# Users and passwords may hold anything but `/?#`; elsewhere an `@` means an unquoted password, and
# then nothing is read at all.
_URL = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.\-]*)://)?(?:[^/?#]*@)?(?P<host>\[[^\]@]*\]|[^:/?#@\[\]]*)"
    r"(?::(?P<port>\d*))?(?:/(?P<path>[^?#@]*))?(?:\?(?P<query>[^#@]*))?(?:#[^@]*)?",
    re.IGNORECASE,
)
_AUTHORITY = re.compile(r"(?:[\w.\-$]+@)?[\w.\-]*(?::\d+)?")  # container@account, too
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


def server_uri(scheme: str, host: str, port: str, default: str) -> str:
    """Return `scheme://host:port`; an explicit port wins over one beside the host."""
    name, beside = host_and_port(host)
    number = as_port(port) or beside or default
    return f"{scheme}://{bracketed(name)}" + (f":{number}" if number else "")


def host_and_port(text: str) -> tuple[str, str]:
    """Return the host, in lower case and one word for this machine, and the port beside it."""
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
    """Return a host as a URL has it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def read_connection(text: str) -> dict[str, str]:
    """Return the words of a connection URL or of `key=value` pairs; `{"": unknown}` of neither."""
    bare = re.sub(r"^(?:postgres|postgresql|mysql):(?!//)", "", text.strip(), flags=re.IGNORECASE)
    if "://" in bare:
        url = _URL.fullmatch(bare)
        if url is None or "/" in (url["path"] or ""):
            return {"": UNKNOWN}
        query = {key: values[-1] for key, values in parse_qs(url["query"] or "").items()}
        said = {
            "host": unquote(url["host"] or "").strip("[]"),
            "port": url["port"] or "",
            "dbname": unquote(url["path"] or ""),
        }
        return {key: said.get(key) or first_text(query.get(key)) for key in said}
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
    """Return a file's path in one form, without what a URL carries besides."""
    if "://" in path:
        url = _URL.fullmatch(path)
        if url is None or not url["scheme"]:
            return UNKNOWN
        port = f":{url['port']}" if url["port"] else ""
        return f"{url['scheme'].lower()}://{url['host'].lower()}{port}/{url['path'] or ''}"
    path = path.partition("?")[0]
    return posixpath.normpath(posixpath.join(root, path)) if path else UNKNOWN


def plain_uri(uri: str) -> str | None:
    """Return a URI without user, password and query; None of what is not one."""
    url = _URL.fullmatch(uri)
    return file_path(uri, "").rstrip("/") if url and url["scheme"] and url["host"] else None


def place_of_files(uri: str) -> tuple[str, str]:
    """Return the namespace and name of files: buckets by bucket and key, others by path."""
    scheme, separator, rest = uri.partition("://")
    scheme = scheme.lower()
    if not separator:
        path = uri[5:] if uri.lower().startswith("file:") else uri
        return "file", posixpath.normpath(path) if path else UNKNOWN
    authority, _, path = rest.partition("?")[0].partition("/")
    path = path.rstrip("/")
    if not _AUTHORITY.fullmatch(authority) or (":" in authority and "@" in path):
        # Something else than a bucket or a server, so perhaps part of a password.
        return f"{scheme}://{UNKNOWN}", UNKNOWN
    if scheme not in {"abfs", "abfss", "wasb", "wasbs"}:
        authority = authority.rpartition("@")[2]
    if scheme == "file":
        return f"file://{authority}" if authority else "file", f"/{path}"
    scheme = "s3" if scheme in {"s3a", "s3n"} else scheme
    return f"{scheme}://{authority}", f"/{path}" if scheme == "hdfs" else path


def first_text(*values: object) -> str:
    """Return the first value that is a word or a number, as text."""
    for value in values:
        if isinstance(value, (str, int)) and not isinstance(value, bool):
            text = str(value).strip()
            if text:
                return text
    return ""


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return what should be a mapping, empty where it is something else."""
    return value if isinstance(value, Mapping) else {}
