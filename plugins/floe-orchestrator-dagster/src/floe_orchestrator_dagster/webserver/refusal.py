"""Explains why there is no usable answer, and what to do about it."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from floe_orchestrator_dagster.urls import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_QUOTED = 300

# The cause of an httpx error; subclasses come before their base classes.
_REMEDIES: dict[type[BaseException], str] = {
    ssl.SSLCertVerificationError: (
        "The certificate is not trusted: set `ca_bundle` in plugins.orchestrator.config to the "
        "certificate file of your own authority, or correct the host name."
    ),
    ssl.SSLError: "TLS failed: check whether the URL must start with http or https.",
    socket.gaierror: "The host name is not known: check the URL and the DNS.",
}


class RefusalError(Exception):
    """The answer cannot be used; the text says why, and what to do."""


def explained(error: BaseException, deadline: float) -> str:
    """Return why there is no answer, and what to do; `deadline` is in seconds."""
    import httpx

    if isinstance(error, RefusalError):
        return str(error)
    if isinstance(error, (httpx.TimeoutException, TimeoutError)):
        return (
            f"no complete answer within {deadline:g} s. Is the webserver overloaded, or does a "
            "firewall or the DNS block it?"
        )
    message = quoted(str(error) or type(error).__name__)
    causes = [*_causes(error)]
    for kind, remedy in _REMEDIES.items():
        if any(isinstance(cause, kind) for cause in causes):
            return f"{message}. {remedy}"
    return f"{message}. Is the webserver running, and is this its port?"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def quoted(text: str) -> str:
    """Return a text of the server in quotes, on one line, cut after `MAX_QUOTED` characters."""
    line = " ".join(printable(text).split()).rstrip(".")
    return f"'{line}'" if len(line) <= MAX_QUOTED else f"'{line[:MAX_QUOTED]} ...'"
